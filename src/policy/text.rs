//! The texts of replies: variables, and what may be sent at all.

use super::number::push_number;
use super::request::{Attribute, Request};
use super::rules::Texts;

/// The name of a variable, and what appends its value.
type Variable<'v> = (&'v str, &'v mut dyn FnMut(&mut Vec<u8>));

/// Replaces the first occurrence of each variable, none of them inside a value
/// already put in.
///
/// The original replaces them one after the other; a value that looks like a
/// later variable is left alone there, so the variables are found first.
fn expand(out: &mut Vec<u8>, template: &str, variables: &mut [Variable]) {
    let mut rest = template;
    let mut used = 0_u32;
    while let Some(at) = rest.find('%') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let found = variables
            .iter_mut()
            .enumerate()
            .find(|(index, (name, _))| used & (1 << index) == 0 && rest.starts_with(*name));
        match found {
            Some((index, (name, push_value))) => {
                used |= 1 << index;
                push_value(out);
                rest = &rest[name.len()..];
            }
            None => {
                out.push(b'%');
                rest = &rest[1..];
            }
        }
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Appends the greylist text: `%s` the seconds missing, `%r` the recipient's
/// domain. In the answer to ETRN a text without a reply code of its own gets
/// `4.2.0` in front.
pub fn push_greylist_text(out: &mut Vec<u8>, texts: &Texts, request: &Request, missing: f64) {
    let recipient = request.text(Attribute::Recipient);
    let domain = recipient.rsplit(|&b| b == b'@').next().unwrap_or(recipient);
    // The original looks at the template: a digit that comes out of `%s` or
    // `%r` is no status code.
    let begins_with_digit = texts
        .greylist_text
        .starts_with(|c: char| c.is_ascii_digit());
    if request.get(Attribute::EtrnDomain).is_some() && !begins_with_digit {
        out.extend_from_slice(b"4.2.0 ");
    }
    expand(
        out,
        &texts.greylist_text,
        &mut [
            ("%s", &mut |out| push_number(out, missing)),
            ("%r", &mut |out| out.extend_from_slice(domain)),
        ],
    );
}

/// Appends the header: `%t` the seconds waited, `%v` the version, `%d` the
/// date, `%h` the host name.
pub fn push_header(
    out: &mut Vec<u8>,
    texts: &Texts,
    version: &str,
    waited: f64,
    date: &dyn Fn(&mut Vec<u8>),
) {
    expand(
        out,
        &texts.x_greylist_header,
        &mut [
            ("%t", &mut |out| push_number(out, waited)),
            ("%v", &mut |out| out.extend_from_slice(version.as_bytes())),
            ("%d", &mut |out| date(out)),
            ("%h", &mut |out| {
                out.extend_from_slice(texts.hostname.as_bytes())
            }),
        ],
    );
}

/// Makes a reply what Postfix takes: valid UTF-8 without control characters.
/// Anything else becomes `?`; Postfix would answer 451 to it.
pub fn make_sendable(reply: &mut Vec<u8>, start: usize) {
    if reply[start..].iter().all(|b| (b' '..=b'~').contains(b)) {
        return;
    }
    let text = String::from_utf8_lossy(&reply[start..]);
    let clean: String = text
        .chars()
        .map(|c| {
            if c.is_control() || c == char::REPLACEMENT_CHARACTER {
                '?'
            } else {
                c
            }
        })
        .collect();
    reply.truncate(start);
    reply.extend_from_slice(clean.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greylist_text(template: &str, recipient: &[u8], etrn: bool) -> String {
        let texts = Texts {
            greylist_text: template.into(),
            ..Texts::default()
        };
        let mut request = Request::default();
        request.set(Attribute::Recipient, recipient);
        if etrn {
            request.set(Attribute::EtrnDomain, b"");
        }
        let mut out = Vec::new();
        push_greylist_text(&mut out, &texts, &request, 299.0);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_variable_is_replaced_once() {
        assert_eq!(
            greylist_text("%r %s %s %r %t %%", b"u@d", false),
            "d 299 %s %r %t %%"
        );
        assert_eq!(greylist_text("%%s %s", b"u@d", false), "%299 %s");
        assert_eq!(greylist_text("%r", b"x@%s.example", false), "%s.example");
        assert_eq!(greylist_text("%r", b"a@b@C", false), "C");
        assert_eq!(greylist_text("%r", b"nodomain", false), "nodomain");
    }

    #[test]
    fn etrn_wants_a_status_code_in_front() {
        assert_eq!(greylist_text("wait", b"", true), "4.2.0 wait");
        assert_eq!(greylist_text("4.7.1 wait", b"", true), "4.7.1 wait");
        assert_eq!(greylist_text("%s left", b"", true), "4.2.0 299 left");
    }

    #[test]
    fn a_host_name_is_not_scanned_for_variables() {
        let texts = Texts {
            x_greylist_header: "X: %h %t %d %v %v".into(),
            hostname: "a%tb".into(),
            ..Texts::default()
        };
        let mut out = Vec::new();
        push_header(&mut out, &texts, "2", 5.0, &|out| {
            out.extend_from_slice(b"now")
        });
        assert_eq!(out, b"X: a%tb 5 now 2 %v");
    }

    #[test]
    fn replies_are_valid_utf8_without_control_characters() {
        for (reply, clean) in [
            (&b"action=x"[..], &b"action=x"[..]),
            (b"action=\xc3\xa9\n\x01\x7f", b"action=\xc3\xa9???"),
            (b"action=\xff\xc2\x85", b"action=??"),
        ] {
            let mut reply = reply.to_vec();
            make_sendable(&mut reply, 0);
            assert_eq!(reply, clean);
        }
    }
}
