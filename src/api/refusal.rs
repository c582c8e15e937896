//! What is told of a request that is refused or can't be read: the answer, and the line of the log.

use crate::api::HostName;
use crate::api::code;
use crate::api::error::ApiError;
use crate::http::answer::{Answer, Content};
use crate::http::message::HttpError;
use crate::logfmt::Line;
use crate::rule::rights::Rights;
use serde_json::json;
use std::fmt;

impl ApiError {
    /// The line of the log about a request that is refused, with what it begins with.
    pub(super) fn line(&self, line: Line) -> Line {
        line.with("status", self.status()).with("code", code::of(self)).with("error", self)
    }

    /// The answer to the request.
    pub(super) fn answer(&self, host: &HostName) -> Answer {
        self.answer_in_words(self, host)
    }

    /// The answer to a client with these rights. What goes wrong in the kernel is told in words of tools and
    /// names of sets, which may be those of lists that it does not see.
    pub(super) fn answer_to(&self, rights: &Rights, host: &HostName) -> Answer {
        match self {
            ApiError::Firewall(error) if error.may_name_lists() && rights.visible().is_some() => {
                let why = "the packet filter can't be read or changed now: the log of rfw says why";
                self.answer_in_words(&why, host)
            }
            _ => self.answer(host),
        }
    }

    fn answer_in_words(&self, why: &dyn fmt::Display, host: &HostName) -> Answer {
        let headers = self.header().into_iter().collect();
        Answer { headers, ..failed(self.status(), code::of(self), why, host) }
    }
}

/// The line of the log about a request that can't be read; without a status if the connection is broken.
pub(super) fn unreadable_line(line: Line, error: &HttpError) -> Line {
    line.with_some("status", error.status()).with("code", code::of_http(error)).with("error", error)
}

/// The answer to a request that can't be read; `None` if the connection is broken.
pub(super) fn unreadable(error: &HttpError, host: &HostName) -> Option<Answer> {
    error.status().map(|status| failed(status, code::of_http(error), error, host))
}

fn failed(status: u16, code: &'static str, why: &dyn fmt::Display, host: &HostName) -> Answer {
    let body = json!({ "code": code, "error": why.to_string(), "host": host.as_str() });
    Answer { code: Some(code), ..Answer::json(status, Content::Text(format!("{body}\n"))) }
}
