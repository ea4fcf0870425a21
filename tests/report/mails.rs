//! Mails of many clients to a real Postfix, and what it answered. Nothing here reads a
//! log: what is known of a request is what was sent, and the reply to it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::random::Random;
use super::smtp::Smtp;
use super::traffic::{Event, letters};

/// Connections at once.
const LANES: usize = 8;

/// Seconds for which the servers greylist.
pub const DELAY: u64 = 3;

/// The servers that clients come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// One pass puts a client on the auto-whitelist.
    Listing,
    /// None does.
    Plain,
    /// It holds clients in the tarpit.
    Tarpit,
}

/// How a mail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is given up.
    Reset,
    /// DATA comes, and its text.
    Deliver,
    /// The client hangs up after its recipients, or after DATA.
    Leave(&'static str),
}

#[derive(Clone, Debug)]
struct Mail {
    round: usize,
    sender: String,
    recipients: Vec<String>,
    end: End,
}

/// A client, its mails, and what became of them.
#[derive(Clone, Debug)]
pub struct Client {
    pub server: Server,
    address: String,
    name: String,
    /// Why its mail passes at once.
    passes_by: &'static str,
    mails: Vec<Mail>,
    pub events: Vec<Event>,
    /// So often it hung up.
    pub broken_off: usize,
}

/// A sender: some with what has a meaning in a log.
fn sender(random: &mut Random, number: usize) -> String {
    let domain = format!("{}.example", letters(random.below(300)));
    let name = letters(number);
    match random.below(40) {
        0 => String::new(),
        1 => format!("\"{name} x\"@{domain}"),
        2 => format!("\"{name}, recipient=y@z\"@{domain}"),
        3 => format!("\"{name}> to=<y\"@{domain}"),
        4 => format!("\"a\\\"{name}, client_address=\"@{domain}"),
        5 => format!("={name}@{domain}"),
        6 => format!("<{name}>@{domain}").replace(['<', '>'], "'"),
        7 => format!("\"; from=<{name}> \"@{domain}"),
        _ => format!("{name}@{domain}"),
    }
}

fn recipients(random: &mut Random, most: usize) -> Vec<String> {
    let count = 1 + random.below(most);
    let one = |index: usize, random: &mut Random| {
        let domain = ["one.test", "two.test", "three.test"][random.below(3)];
        let name = letters(random.below(50) * most + index);
        match random.below(30) {
            0 => format!("\"{name}, y\"@{domain}"),
            1 => format!("\"{name}; from=<a> to=<b>\"@{domain}"),
            2 => format!("={name}@{domain}"),
            _ => format!("{name}@{domain}"),
        }
    };
    (0..count).map(|index| one(index, random)).collect()
}

/// Clients with about so many recipients in all.
pub fn make(random: &mut Random, count: usize) -> Vec<Client> {
    let mut all = Vec::new();
    let held = (count / 100).clamp(8, 80);
    for number in 0..held {
        all.push(of_tarpit(random, number));
    }
    let mut made = 0;
    while made < count {
        let client = of_client(random, all.len());
        let of_mail = client.mails.iter().map(|mail| mail.recipients.len());
        made += of_mail.sum::<usize>();
        all.push(client);
    }
    all
}

fn client(number: usize, server: Server, is_ipv6: bool) -> Client {
    let (a, b, c) = (11 + number / 65_536, number / 256 % 256, number % 256);
    Client {
        server,
        address: match is_ipv6 {
            true => format!(
                "2001:db8:{:x}:{:x}::7",
                number / 65_535,
                number % 65_535 + 1
            ),
            false => format!("{a}.{b}.{c}.7"),
        },
        name: format!("host.{}.example", letters(number)),
        passes_by: "",
        mails: Vec::new(),
        events: Vec::new(),
        broken_off: 0,
    }
}

fn of_tarpit(random: &mut Random, number: usize) -> Client {
    let end = match number % 4 {
        0 => End::Leave("RCPT"),
        1 => End::Reset,
        _ => End::Deliver,
    };
    let mail = Mail {
        round: 0,
        sender: sender(random, number),
        recipients: recipients(random, 1),
        end,
    };
    Client {
        mails: vec![mail],
        ..client(number, Server::Tarpit, false)
    }
}

fn of_client(random: &mut Random, number: usize) -> Client {
    let server = [Server::Listing, Server::Plain][random.below(2)];
    let mut client = client(number, server, random.percent(5));
    let mail = Mail {
        round: 0,
        sender: sender(random, number),
        recipients: recipients(random, 6),
        end: End::Reset,
    };
    let again = |round, end, mail: &Mail| Mail {
        round,
        end,
        ..mail.clone()
    };
    match random.below(100) {
        // Comes again, and then often.
        0..45 => {
            client.mails.push(mail.clone());
            for _ in 0..2 + random.below(3) {
                client.mails.push(again(1, End::Reset, &mail));
            }
            if random.percent(3) {
                client.mails.push(again(1, End::Deliver, &mail));
            }
            if random.percent(3) {
                client.mails.push(again(1, End::Leave("DATA"), &mail));
            }
        }
        // It has no name.
        45..55 => {
            client.name = "[UNAVAILABLE]".into();
            client.mails.push(mail);
        }
        // Never comes again, but at once.
        55..85 => {
            let is_early = random.percent(40);
            client.mails.push(mail.clone());
            if is_early {
                client.mails.push(again(0, End::Reset, &mail));
            }
            if random.percent(10) {
                client.mails.push(again(0, End::Leave("RCPT"), &mail));
            }
        }
        85..95 => {
            client.name = format!("mx.{}.white.example", letters(number));
            client.passes_by = "client whitelist";
            client.mails.push(mail.clone());
            client.mails.push(again(1, End::Reset, &mail));
        }
        _ => {
            client.passes_by = "recipient whitelist";
            let recipients = vec!["postmaster@one.test".into()];
            client.mails.push(Mail { recipients, ..mail });
        }
    }
    client
}

/// Has all clients send the mails of a round.
pub fn send(clients: &mut [Client], round: usize, port_of: &(dyn Fn(Server) -> u16 + Sync)) {
    let mut lanes: Vec<Vec<&mut Client>> = Vec::new();
    lanes.resize_with(LANES, Vec::new);
    for (index, client) in clients.iter_mut().enumerate() {
        lanes[index % LANES].push(client);
    }
    std::thread::scope(|scope| {
        for lane in lanes {
            scope.spawn(move || {
                // A connection to each server, in which one client comes after the other.
                let mut sessions: Vec<(Server, Smtp)> = Vec::new();
                for client in lane {
                    client.send(round, port_of, &mut sessions);
                }
                for (_, mut session) in sessions {
                    session.command("QUIT");
                }
            });
        }
    });
}

impl Client {
    fn send(
        &mut self,
        round: usize,
        port_of: &(dyn Fn(Server) -> u16 + Sync),
        sessions: &mut Vec<(Server, Smtp)>,
    ) {
        let mails = self.mails.clone();
        let mut is_known = false;
        for mail in mails.iter().filter(|mail| mail.round == round) {
            let at = sessions.iter().position(|(own, _)| *own == self.server);
            let mut session = match at.map(|at| sessions.swap_remove(at).1) {
                None => Smtp::appear_as(port_of(self.server), &self.xclient(), &self.name),
                Some(mut session) => {
                    if !is_known {
                        session.command("RSET");
                        session.become_client(&self.xclient(), &self.name);
                    }
                    session
                }
            };
            is_known = true;
            self.offer(mail, &mut session);
            if self.end(mail, &mut session) {
                sessions.push((self.server, session));
            } else {
                is_known = false;
            }
        }
    }

    fn xclient(&self) -> String {
        match self.address.contains(':') {
            true => format!("IPV6:{}", self.address),
            false => self.address.clone(),
        }
    }

    /// Names sender and recipients, in one go but to the tarpit.
    fn offer(&mut self, mail: &Mail, session: &mut Smtp) {
        let mut lines = vec!["RSET".to_owned(), format!("MAIL FROM:<{}>", mail.sender)];
        lines.extend(mail.recipients.iter().map(|to| format!("RCPT TO:<{to}>")));
        session.send(&lines);
        for line in &lines[..2] {
            let reply = session.reply();
            assert_eq!(reply.code, 250, "{line}: {reply}");
        }
        let whole = format!(": Greylisted for {DELAY}");
        for recipient in &mail.recipients {
            let reply = session.reply();
            let mut event = self.event(mail, recipient);
            let has_passed = |own: &Event| own.reply == "DUNNO";
            event.reply = match reply.code {
                // What is new is asked to wait for all of the time.
                450 if reply.text.ends_with(&whole) => "DEFER_IF_PERMIT Greylisted for 300",
                450 => "DEFER_IF_PERMIT Greylisted for 1",
                250 if self.server == Server::Tarpit => "SLEEP 125",
                250 => "DUNNO",
                _ => panic!("{recipient}: {reply}"),
            }
            .into();
            let is_listed = self.server == Server::Listing && self.events.iter().any(has_passed);
            if is_listed && self.passes_by.is_empty() {
                event.passes_by = "client AWL";
            }
            self.events.push(event);
        }
    }

    fn event(&self, mail: &Mail, recipient: &str) -> Event {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Event {
            time: now.as_secs(),
            client: self.address.clone(),
            name: self.name.clone(),
            sender: mail.sender.clone(),
            recipient: recipient.into(),
            passes_by: self.passes_by,
            ..Event::default()
        }
    }

    /// Ends a mail; false if the session has ended with it.
    fn end(&mut self, mail: &Mail, session: &mut Smtp) -> bool {
        match mail.end {
            End::Reset => true,
            End::Deliver => {
                let reply = session.deliver("x");
                assert_eq!(reply.code, 250, "{reply}");
                self.add_data();
                true
            }
            End::Leave(stage) => {
                if stage == "DATA" {
                    let reply = session.command("DATA");
                    assert_eq!(reply.code, 354, "{reply}");
                }
                self.broken_off += 1;
                false
            }
        }
    }

    /// The tarpit is asked at DATA as well.
    fn add_data(&mut self) {
        if self.server != Server::Tarpit {
            return;
        }
        let mut event = self.events.last().unwrap().clone();
        event.is_data = true;
        event.reply = "DUNNO".into();
        event.passes_by = "tarpit passed";
        // As one comes that has waited by the count.
        event.time += 125;
        self.events.push(event);
    }
}
