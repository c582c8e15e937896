//! The page that `GET /` is for a browser: one file with its script and its styles, and the headers that
//! leave it nothing else. It asks the same API as everybody, with the rights of who is logged in.

use crate::api::media;
use crate::http::answer::{Answer, Content, JSON};
use base64::prelude::{BASE64_STANDARD, Engine};
use ring::digest::{SHA256, digest};

const PAGE: &str = include_str!("page.html");

/// The media type of HTML (RFC 2854).
const HTML: &str = "text/html";

/// Whether a client prefers the page to the help, as a browser does whose user opens it.
pub(super) fn is_preferred(accept: &str) -> bool {
    media::preferred(accept, JSON, [HTML]) == HTML
}

/// The answer to `GET /` where HTML is preferred.
pub(super) fn page() -> Answer {
    let headers = [
        ("Content-Security-Policy", policy()),
        ("Referrer-Policy", "no-referrer".to_owned()),
        ("Cross-Origin-Opener-Policy", "same-origin".to_owned()),
        ("Vary", "Accept".to_owned()),
    ];
    let body = Content::Text(PAGE.to_owned());
    Answer { media_type: "text/html; charset=utf-8", headers: headers.into(), ..Answer::json(200, body) }
}

/// The policy of the page (Content Security Policy Level 3): the script and the styles of the file by their
/// hashes, requests to rfw itself, the icon in the file, and nothing else.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        source("script"),
        source("style")
    )
}

/// The source of an element of the file, as the policy names it; `'none'` where it is not there.
fn source(element: &str) -> String {
    let text = PAGE.split_once(&format!("<{element}>"));
    let text = text.and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    text.map_or("'none'".to_owned(), |(text, _)| {
        format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_script_and_the_styles() {
        let policy = policy();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("script-src 'none'"), "{policy}");
        assert_eq!((PAGE.matches("<script").count(), PAGE.matches("<style").count()), (1, 1));
    }

    #[test]
    fn the_page_is_one_small_file_that_takes_data_for_text_alone() {
        assert!(PAGE.len() < 30_000, "{} bytes", PAGE.len());
        for word in
            ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " style=", " onclick="]
        {
            assert!(!PAGE.contains(word), "{word}");
        }
        let links = PAGE.split("://").count() - 1;
        let own = PAGE.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(links, own, "a resource of others");
    }
}
