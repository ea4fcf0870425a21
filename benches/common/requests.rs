//! Policy requests as Postfix 3.7 sends them: 29 attributes, about 720 octets.
#![allow(dead_code)] // each program uses its part

use std::io::Write;

/// What a request is about, made from a number: the same number, the same
/// client, sender and recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The first octet of the client's address: clients of different networks
    /// never meet.
    pub network: u8,
    /// Which client, below 2 to the power of 24.
    pub client: u64,
    /// Which sender and recipient.
    pub mail: u64,
    /// The client's name is in the domain `white.example`.
    pub is_whitelisted: bool,
}

impl Subject {
    /// The address of the client. Neighbouring numbers are far apart.
    pub fn address(&self) -> [u8; 4] {
        let [_, a, b, c] =
            (self.client.wrapping_mul(0x9e37_79b1) as u32 & 0x00ff_ffff).to_be_bytes();
        [self.network, a, b, c]
    }

    /// Appends the sender.
    pub fn push_sender(&self, out: &mut Vec<u8>) {
        let mail = self.mail.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let _ = write!(
            out,
            "sender{mail:08x}{:x}@mail{mail:08x}.example",
            self.mail
        );
    }

    /// Appends the recipient.
    pub fn push_recipient(&self, out: &mut Vec<u8>) {
        let _ = write!(out, "recipient{:x}@example.org", self.mail % 5000);
    }
}

/// Appends a request. `serial` makes its instance; `time` is its
/// `policy_test_time`.
pub fn push_request(out: &mut Vec<u8>, subject: &Subject, serial: u64, time: Option<u64>) {
    let [a, b, c, d] = subject.address();
    let domain = if subject.is_whitelisted {
        "white.example"
    } else {
        "grey.example"
    };
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n\
         client_address={a}.{b}.{c}.{d}\nclient_name=host-{b}-{c}.{domain}\nclient_port=41622\n\
         reverse_client_name=host-{b}-{c}.{domain}\nserver_address=192.0.2.25\nserver_port=25\n\
         helo_name=host-{b}-{c}.{domain}\nsender="
    );
    subject.push_sender(out);
    out.extend_from_slice(b"\nrecipient=");
    subject.push_recipient(out);
    let _ = write!(
        out,
        "\nrecipient_count=0\nqueue_id=\ninstance=1a2b.{serial:016x}.0\nsize=18342\netrn_domain=\n\
         stress=\nsasl_method=\nsasl_username=\nsasl_sender=\nccert_subject=\nccert_issuer=\n\
         ccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n\
         encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n"
    );
    if let Some(time) = time {
        let _ = writeln!(out, "policy_test_time={time}");
    }
    out.push(b'\n');
}
