//! Requests of many clients over some days, in an order that real servers answer, and
//! what becomes of them by their answers.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::random::Random;

/// 2026-11-02 00:00 UTC, a Monday.
pub const START: u64 = 1_793_577_600;
/// Clients begin within so many seconds.
const SPAN: usize = 5 * 86_400;

/// A request, and what was answered.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub time: u64,
    pub client: String,
    pub name: String,
    pub sender: String,
    pub recipient: String,
    pub is_data: bool,
    /// Which mail it is about; 0: one of its own.
    pub mail: usize,
    /// Why it passes if the answer does not tell.
    pub passes_by: &'static str,
    pub reply: String,
}

/// What the answer says: action, reason.
pub type Kind = (&'static str, &'static str);

impl Event {
    /// The request as Postfix sends it; its queue number says which it is.
    pub fn request(&self, number: usize) -> String {
        let state = if self.is_data { "DATA" } else { "RCPT" };
        let mail = match self.mail {
            0 => format!("i{number}"),
            mail => format!("m{mail}"),
        };
        format!(
            "request=smtpd_access_policy\nprotocol_state={state}\nclient_address={}\nclient_name={}\n\
             sender={}\nrecipient={}\nqueue_id=Q{number}\ninstance={mail}\npolicy_test_time={}\n\n",
            self.client, self.name, self.sender, self.recipient, self.time
        )
    }

    /// By the reply alone, and by who asked.
    pub fn kind(&self) -> Kind {
        match self.reply.as_str() {
            "SLEEP 125" => ("tarpit", "new"),
            "DEFER_IF_PERMIT Greylisted for 300" => ("greylist", "new"),
            reply if reply.starts_with("DEFER_IF_PERMIT Greylisted for ") => {
                ("greylist", "early-retry")
            }
            reply if reply.starts_with("PREPEND X-Greylist: delayed ") => ("pass", "triplet found"),
            "DUNNO" if self.passes_by.is_empty() => ("pass", "triplet found"),
            "DUNNO" => ("pass", self.passes_by),
            reply => panic!("{reply}: {self:?}"),
        }
    }

    /// The triplet: the network stands for the client.
    pub fn triplet(&self) -> (String, String, String) {
        (self.network(), self.sender.clone(), self.recipient.clone())
    }

    pub fn network(&self) -> String {
        match self.client.rsplit_once("::") {
            Some((network, _)) => format!("{network}:0:0:0:0"),
            None => format!("{}.0", self.client.rsplit_once('.').unwrap().0),
        }
    }
}

/// A number in letters: senders may not be reduced.
pub fn letters(mut number: usize) -> String {
    let mut text = String::new();
    loop {
        text.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
        if number == 0 {
            return text;
        }
    }
}

/// The requests of one client after the other, about as many as asked for.
pub fn make(
    random: &mut Random,
    count: usize,
    first_net: usize,
    is_targrey: bool,
) -> Vec<Vec<Event>> {
    let mut all = Vec::new();
    let mut made = 0;
    while made < count {
        let own = of_client(random, first_net + all.len(), is_targrey);
        made += own.len();
        all.push(own);
    }
    all
}

fn of_client(random: &mut Random, net: usize, is_targrey: bool) -> Vec<Event> {
    let begin = START + random.below(SPAN) as u64;
    let (a, b, c) = (11 + net / 65_536, net / 256 % 256, net % 256);
    let domain = format!("{}.example", letters(random.below(400)));
    let plain = Event {
        client: format!("{a}.{b}.{c}.7"),
        name: format!("host.{}.example", letters(net)),
        sender: format!("{}@{domain}", letters(net)),
        recipient: format!(
            "{}@{}.test",
            letters(random.below(40)),
            letters(random.below(12))
        ),
        ..Event::default()
    };
    let at = |later: u64, event: &Event| Event {
        time: begin + later,
        ..event.clone()
    };
    let other = Event {
        client: format!("{a}.{b}.{c}.8"),
        ..plain.clone()
    };
    let second = Event {
        sender: format!("x{}", plain.sender),
        ..plain.clone()
    };
    let by = |passes_by, event: &Event| Event {
        passes_by,
        ..event.clone()
    };
    let data = Event {
        is_data: true,
        recipient: if random.percent(50) {
            String::new()
        } else {
            plain.recipient.clone()
        },
        ..by("tarpit passed", &plain)
    };
    let back = 300 + random.below(3000) as u64;
    let mut events = Vec::new();
    match (is_targrey, random.below(100)) {
        // Never comes again.
        (false, 0..30) => {
            events.push(at(0, &plain));
            if random.percent(30) {
                events.push(at(10 + random.below(280) as u64, &plain));
            }
        }
        // Comes again from another address of its network, and then often.
        (false, 30..70) => {
            events.push(at(0, &plain));
            if random.percent(20) {
                events.push(at(60, &other));
            }
            events.push(at(back, &other));
            for more in 0..random.below(12) as u64 {
                events.push(at(back + 600 * (more + 1), &plain));
            }
        }
        (false, 70..80) => {
            let white = Event {
                name: format!("mx.{}.white.example", letters(net)),
                ..by("client whitelist", &plain)
            };
            events.extend((0..3).map(|more| at(more * 100, &white)));
        }
        (false, 80..84) => {
            let white = Event {
                recipient: "postmaster@a.test".into(),
                ..by("recipient whitelist", &plain)
            };
            events.push(at(0, &white));
        }
        // Passes twice, and is on the auto-whitelist then.
        (false, 84..88) => {
            events.push(at(0, &plain));
            events.push(at(400, &plain));
            events.push(at(5000, &second));
            events.push(at(5400, &second));
            for more in 0..4 {
                events.push(at(9000 + more * 50, &by("client AWL", &second)));
            }
        }
        // Begins anew, since the retry window is over.
        (false, 88..90) => {
            events.push(at(0, &plain));
            events.push(at(3 * 86_400, &plain));
            events.push(at(3 * 86_400 + 333, &plain));
        }
        (false, _) => {
            let large = Event {
                name: format!("mail-{}.google.com", letters(net)),
                ..plain.clone()
            };
            events.push(at(0, &large));
            events.push(at(back, &large));
        }
        // Gives up.
        (true, 0..40) => events.push(at(0, &plain)),
        // Waits.
        (true, 40..60) => {
            events.push(at(0, &plain));
            events.push(at(125, &data));
        }
        // Gives up, and is greylisted.
        (true, 60..75) => {
            events.push(at(0, &plain));
            events.push(at(60, &plain));
            events.push(at(70, &second));
            events.push(at(back, &plain));
        }
        // Waits twice, and is on the auto-whitelist then.
        (true, _) => {
            events.push(at(0, &plain));
            events.push(at(125, &data));
            events.push(at(5000, &second));
            events.push(at(5125, &data));
            for more in 0..3 {
                events.push(at(9000 + more * 50, &by("client AWL", &plain)));
            }
        }
    }
    events
}

/// A time as the log has it.
pub fn date(time: u64) -> String {
    let day = (time - START) / 86_400;
    let second = time % 86_400;
    format!(
        "2026-11-{:02}T{:02}:{:02}:{:02}Z",
        2 + day,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The lines that a server has written, as a log in the order of time. Those about the
/// auto-whitelist tell the address, not the request.
pub fn log(said: &str, events: &[Event]) -> String {
    let mut lines: Vec<(u64, usize, &str)> = Vec::new();
    let mut whitelisted: HashMap<&str, u64> = HashMap::new();
    for event in events {
        // The request that whitelists comes before those that pass by it.
        let is_before = event.passes_by != "client AWL";
        if is_before {
            let time = whitelisted.entry(&event.client).or_default();
            *time = event.time.max(*time);
        }
    }
    for (place, line) in said.lines().enumerate() {
        let number = line
            .strip_prefix('Q')
            .and_then(|rest| rest.split(": ").next());
        if let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) {
            lines.push((events[number].time, place, line));
        } else if line.contains("whitelisted: ") {
            let address = line
                .rsplit(['[', ' '])
                .next()
                .unwrap()
                .trim_end_matches(']');
            lines.push((whitelisted[address], place, line));
        }
    }
    lines.sort_unstable();
    let mut log = String::new();
    for (time, _, line) in lines {
        writeln!(log, "{} mx postgrey[99]: {line}", date(time)).unwrap();
    }
    log
}
