//! A small SMTP client that can appear as any client (XCLIENT).
#![allow(dead_code)] // each program uses its part

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A reply of the mail server.
#[derive(Clone, Debug)]
pub struct Reply {
    pub code: u16,
    pub text: String,
    /// How long it took.
    pub time: Duration,
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Reply { code, text, time } = self;
        write!(f, "{code} {text} ({:.1} s)", time.as_secs_f64())
    }
}

/// A session.
pub struct Smtp {
    stream: BufReader<TcpStream>,
}

impl Smtp {
    /// Connects and appears as this client; `address` as XCLIENT wants it,
    /// `IPV6:` in front of IPv6.
    pub fn appear_as(port: u16, address: &str, name: &str) -> Smtp {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        let mut smtp = Smtp {
            stream: BufReader::new(stream),
        };
        let hello = smtp.read(Instant::now());
        assert_eq!(hello.code, 220, "{hello}");
        smtp.command("EHLO client.example.net");
        smtp.become_client(address, name);
        smtp
    }

    /// Goes on as this client.
    pub fn become_client(&mut self, address: &str, name: &str) {
        for command in [
            &format!("XCLIENT NAME={name} ADDR={address}"),
            "EHLO client.example.net",
        ] {
            let reply = self.command(command);
            assert!(matches!(reply.code, 220 | 250), "{command}: {reply}");
        }
    }

    pub fn command(&mut self, line: &str) -> Reply {
        let start = Instant::now();
        self.stream
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .unwrap();
        self.read(start)
    }

    /// Sends lines without waiting for their replies.
    pub fn send(&mut self, lines: &[String]) {
        let mut text = lines.join("\r\n");
        text.push_str("\r\n");
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next reply to what was sent; its time is from this call on.
    pub fn reply(&mut self) -> Reply {
        self.read(Instant::now())
    }

    fn read(&mut self, start: Instant) -> Reply {
        let mut line = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            assert!(line.len() > 3, "the session ends: {line:?}");
            if line.as_bytes()[3] != b'-' {
                break;
            }
        }
        Reply {
            code: line[..3].parse().unwrap(),
            text: line[3..].trim().to_string(),
            time: start.elapsed(),
        }
    }

    /// MAIL and RCPT; the reply to RCPT.
    pub fn offer(&mut self, sender: &str, recipient: &str) -> Reply {
        self.begin(sender);
        self.recipient(recipient)
    }

    pub fn begin(&mut self, sender: &str) {
        let reply = self.command("RSET");
        assert_eq!(reply.code, 250, "{reply}");
        let reply = self.command(&format!("MAIL FROM:<{sender}>"));
        assert_eq!(reply.code, 250, "{reply}");
    }

    pub fn recipient(&mut self, recipient: &str) -> Reply {
        self.command(&format!("RCPT TO:<{recipient}>"))
    }

    /// DATA and the mail; the subject tells it from others.
    pub fn deliver(&mut self, subject: &str) -> Reply {
        let reply = self.command("DATA");
        if reply.code != 354 {
            return reply;
        }
        let end = self.command(&format!("Subject: {subject}\r\n\r\ntext\r\n."));
        assert_eq!(end.code, 250, "{end}");
        // What counts is how long DATA took: there the server was asked.
        Reply {
            time: reply.time,
            ..end
        }
    }
}
