//! What a ping is answered: see PROTOCOL in postgrey(8).

use super::beats::Beats;

/// Appends the answer to a ping while the database is out of use.
pub fn push_unusable(reply: &mut Vec<u8>) {
    push(reply, "trouble: the database is being verified");
}

/// Appends the answer to a ping whose command was committed, or not.
pub fn push_answer(reply: &mut Vec<u8>, is_committed: bool, beats: &Beats) {
    match (is_committed, beats.silent_worker()) {
        (true, None) => push(reply, "ok"),
        (true, Some(worker)) => push(reply, &format!("silent: worker {worker} does not answer")),
        (false, _) if beats.is_writer_silent() => {
            push(reply, "trouble: the writer does not answer");
        }
        (false, _) => push(reply, "trouble: the database fails, see the log"),
    }
}

fn push(reply: &mut Vec<u8>, text: &str) {
    reply.extend_from_slice(b"ping=");
    reply.extend_from_slice(text.as_bytes());
    reply.extend_from_slice(b"\n\n");
}
