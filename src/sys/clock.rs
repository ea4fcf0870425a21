//! The clock and the local date.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, whole ones, as records have them.
pub fn seconds() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() as f64
}

/// Appends the local date as a mail header has it, with the name of the time
/// zone: `Tue, 24 Nov 2026 02:27:10 UTC`.
pub fn push_date(out: &mut Vec<u8>) {
    push_local_time(out, c"%a, %d %b %Y %H:%M:%S %Z");
}

/// Appends the local time as start and stop lines have it:
/// `2026/11/24-02:27:10`.
pub fn push_timestamp(out: &mut Vec<u8>) {
    push_local_time(out, c"%Y/%m/%d-%H:%M:%S");
}

fn push_local_time(out: &mut Vec<u8>, format: &std::ffi::CStr) {
    let now = seconds() as libc::time_t;
    let mut text = [0_u8; 128];
    let mut broken_down = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid; a tm of zeros is a valid value should
    // the call fail.
    let broken_down = unsafe {
        libc::localtime_r(&raw const now, broken_down.as_mut_ptr());
        broken_down.assume_init()
    };
    // SAFETY: the length is that of the buffer, the format ends in NUL and the
    // broken-down time is initialised.
    let length = unsafe {
        libc::strftime(
            text.as_mut_ptr().cast(),
            text.len(),
            format.as_ptr(),
            &raw const broken_down,
        )
    };
    out.extend_from_slice(&text[..length.min(text.len())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_shape_of_mail_headers() {
        let mut out = Vec::new();
        push_date(&mut out);
        let date = String::from_utf8(out).unwrap();
        let shape =
            regex::Regex::new(r"^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \S+$");
        assert!(shape.unwrap().is_match(&date), "{date}");
    }
}
