//! The parameters of a request: what is behind the `?` of its target.

use crate::api::changes::Since;
use crate::api::format::Format;
use crate::api::url_error::UrlError;
use crate::firewall::WhichLists;
use crate::rule::Target;
use crate::rule::lease::Interval;
use crate::rule::list_name::ListName;
use crate::rule::network::Network;
use crate::rule::note::Reason;

/// The percent-decoded parameters of a query, each at most once.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Parses a query.
    ///
    /// # Errors
    /// What is not percent-encoded, or a repeated parameter.
    pub(super) fn of(query: Option<&str>) -> Result<Parameters, UrlError> {
        let mut all: Vec<(String, String)> = Vec::new();
        for pair in query.filter(|query| !query.is_empty()).iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (percent_decode(name)?, percent_decode(value)?);
            if all.iter().any(|(known, _)| *known == name) {
                return Err(UrlError::Repeated(name));
            }
            all.push((name, value));
        }
        Ok(Parameters(all))
    }

    /// Checks that no other parameter is given.
    ///
    /// # Errors
    /// The first other one.
    pub(super) fn only(&self, known: &'static [&'static str]) -> Result<(), UrlError> {
        let unknown = self.0.iter().find(|(name, _)| !known.contains(&name.as_str()));
        unknown.map_or(Ok(()), |(name, _)| Err(UrlError::Parameter(name.clone(), known)))
    }

    /// The value of a parameter, if it is given.
    pub(super) fn value(&self, wanted: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that may be given without one, which is as if it were not given.
    fn non_empty(&self, wanted: &str) -> Option<&str> {
        self.value(wanted).filter(|value| !value.is_empty())
    }

    /// How long a rule stays.
    ///
    /// # Errors
    /// Not a time span.
    pub(super) fn expire(&self) -> Result<Option<Interval>, UrlError> {
        self.non_empty("expire").map(Interval::parse).transpose().map_err(UrlError::Expire)
    }

    /// Why an address is put in; no words are no reason.
    ///
    /// # Errors
    /// What a comment of the kernel can't hold.
    pub(super) fn reason(&self) -> Result<Option<Reason>, UrlError> {
        Ok(self.value("reason").map(Reason::parse).transpose()?.flatten())
    }

    /// The address or network that is asked for.
    ///
    /// # Errors
    /// Not an address or a network.
    pub(super) fn address(&self) -> Result<Option<Network>, UrlError> {
        Ok(self.value("address").map(str::parse).transpose()?)
    }

    /// The list that a change is about; the unnamed one if there is none.
    ///
    /// # Errors
    /// Not the name of a list.
    pub(super) fn list(&self) -> Result<ListName, UrlError> {
        Ok(self.value("list").map(str::parse).transpose()?.unwrap_or(ListName::UNNAMED))
    }

    /// The list that is asked for; `-` is the unnamed one.
    ///
    /// # Errors
    /// Not the name of a list.
    pub(super) fn list_or_unnamed(&self) -> Result<Option<ListName>, UrlError> {
        let parse = |word: &str| ListName::from_word(word).map_or_else(|| word.parse(), Ok);
        Ok(self.value("list").map(parse).transpose()?)
    }

    /// Lists that are to be deleted; `*` is all, and `-` the unnamed one.
    ///
    /// # Errors
    /// Not the name of a list.
    pub(super) fn lists(&self) -> Result<Option<WhichLists>, UrlError> {
        match self.value("list") {
            Some("*") => Ok(Some(WhichLists::All)),
            _ => Ok(self.list_or_unnamed()?.map(WhichLists::One)),
        }
    }

    /// The target that is asked for.
    ///
    /// # Errors
    /// Not a target.
    pub(super) fn target(&self) -> Result<Option<Target>, UrlError> {
        let parse = |value: &str| {
            let wrong = || UrlError::Value("target", value.to_owned(), "drop, accept or reject");
            Target::parse(value).ok_or_else(wrong)
        };
        self.value("target").map(parse).transpose()
    }

    /// The form, one of these, that a listing is asked for in.
    ///
    /// # Errors
    /// Not one of them.
    pub(super) fn format(&self, of: &[Format]) -> Result<Option<Format>, UrlError> {
        let expected = if of.contains(&Format::Plain) { "json, csv or plain" } else { "json or csv" };
        let parse = |value: &str| {
            let wrong = || UrlError::Value("format", value.to_owned(), expected);
            Format::parse(value, of).ok_or_else(wrong)
        };
        self.value("format").map(parse).transpose()
    }

    /// From where on changes are asked for.
    ///
    /// # Errors
    /// Neither a time nor what an answer tells as `next`.
    pub(super) fn since(&self) -> Result<Option<Since>, UrlError> {
        let expected = "a time in UTC such as 2026-11-27T10:00:00Z, or the \"next\" of an earlier answer";
        let parse =
            |text: &str| text.parse().map_err(|()| UrlError::Value("since", text.to_owned(), expected));
        self.value("since").map(parse).transpose()
    }

    /// Accepts `wait=true` and an empty value only: a request is answered after the kernel has the change.
    ///
    /// # Errors
    /// Another value.
    pub(super) fn wait(&self) -> Result<(), UrlError> {
        self.non_empty("wait").map_or(Ok(()), |_| self.is_true("wait").map(drop))
    }

    /// Whether a parameter is given, which has to be `true`.
    ///
    /// # Errors
    /// Another value.
    pub(super) fn is_true(&self, name: &'static str) -> Result<bool, UrlError> {
        match self.value(name) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) => Err(UrlError::Value(name, value.to_owned(), "true")),
        }
    }
}

/// Decodes percent-encoded octets (RFC 3986, 2.1); a `+` stays one.
///
/// # Errors
/// A `%` without two digits behind it, or what is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Result<String, UrlError> {
    let error = || UrlError::Encoding(text.to_owned());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit().ok_or_else(error)?, digit().ok_or_else(error)?);
                decoded.push(u8::try_from(high * 16 + low).map_err(|_| error())?);
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| error())
}
