//! What the server counts, in memory that all its processes share.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes the counters and their table of one list: name, word, meaning.
macro_rules! counters {
    ($($name:ident = $word:literal: $meaning:literal,)*) => {
        /// Everything that is counted since the start.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // each has its meaning in the list
        pub enum Counter { $($name,)* }

        impl Counter {
            /// Each counter, its word in the outputs, and its meaning.
            const TABLE: &[(Counter, &str, &str)] = &[$((Counter::$name, $word, $meaning),)*];
            /// How many there are.
            pub const COUNT: usize = Counter::TABLE.len();
        }
    };
}

counters! {
    Requests = "requests": "Requests answered",
    PassClientWhitelist = "pass_client_whitelist": "Passed: client whitelist",
    PassRecipientWhitelist = "pass_recipient_whitelist": "Passed: recipient whitelist",
    PassSenderWhitelist = "pass_sender_whitelist": "Passed: sender whitelist",
    PassNotOptedIn = "pass_not_opted_in": "Passed: recipient not opted in",
    PassNotS25r = "pass_not_s25r": "Passed: not S25R",
    PassClientAwl = "pass_client_awl": "Passed: client auto-whitelist",
    PassTriplet = "pass_triplet": "Passed: triplet found",
    PassHeader = "pass_header": "Passed with a header",
    PassHeldBefore = "pass_held_before": "Passed: the mail was held before",
    GreylistNew = "greylist_new": "Greylisted: new triplet",
    GreylistEarly = "greylist_early_retry": "Greylisted: early retry",
    NotRecorded = "not_recorded": "New ones not recorded (--max-new)",
    Tarpitted = "tarpitted": "Sent to the tarpit",
    TarpitPassed = "tarpit_passed": "DATA after the tarpit",
    ClientsWhitelisted = "clients_whitelisted": "Clients put on the auto-whitelist",
    Unusable = "unusable": "Missing attributes or bad addresses",
    TooLarge = "too_large": "Requests beyond the bounds",
    Unrecognized = "unrecognized": "Requests of another type",
    Garbage = "garbage": "Lines that are no attribute",
    StoreErrors = "store_errors": "Requests the store failed",
    Bugs = "bugs": "Requests and batches that met a bug of the program",
    WriterSilent = "writer_silent": "Commands the writer did not answer in time",
    AnswersDelayed = "answers_delayed": "Answers of the writer that a worker did not take at once",
    BadRecords = "bad_records": "Records that could not be read",
    Batches = "batches": "Transactions",
    BatchedCommands = "batched_commands": "Commands in them",
    LargestBatch = "largest_batch": "Commands in the largest one",
    StoreMicroseconds = "store_microseconds": "Time spent in them",
    Connections = "connections": "Connections accepted",
    Stalled = "stalled": "Connections closed since they did not read",
    IdleClosed = "idle_closed": "Idle connections closed since descriptors ran out",
    DescriptorsOut = "descriptors_out": "Times descriptors ran out",
    ChildrenDied = "children_died": "Children replaced",
}

/// The counters and the number of connections of each worker.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    counts: &'static [AtomicU64; Counter::COUNT],
    /// One a worker: 0 if it takes no more, else its connections and 1.
    workers: &'static [AtomicU64],
}

impl Counters {
    /// Counters in these cells; the second slice has one for each worker.
    pub fn new(
        counts: &'static [AtomicU64; Counter::COUNT],
        workers: &'static [AtomicU64],
    ) -> Self {
        Counters { counts, workers }
    }

    /// Counts something.
    pub fn add(&self, counter: Counter, number: u64) {
        self.counts[counter as usize].fetch_add(number, Ordering::Relaxed);
    }

    /// Counts a transaction.
    pub fn add_batch(&self, commands: usize, time: std::time::Duration) {
        let commands = commands as u64;
        self.add(Counter::Batches, 1);
        self.add(Counter::BatchedCommands, commands);
        self.add(Counter::StoreMicroseconds, time.as_micros() as u64);
        self.counts[Counter::LargestBatch as usize].fetch_max(commands, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize].load(Ordering::Relaxed)
    }

    /// Tells the others how many connections a worker has; `None`: it takes no
    /// more.
    pub fn set_connections(&self, worker: usize, connections: Option<usize>) {
        let present = connections.map_or(0, |count| count as u64 + 1);
        if let Some(cell) = self.workers.get(worker) {
            cell.store(present, Ordering::Relaxed);
        }
    }

    /// The connections of the worker that has the fewest; `None` without one.
    pub fn fewest_connections(&self) -> Option<usize> {
        let present = self.workers.iter().map(|cell| cell.load(Ordering::Relaxed));
        let fewest = present.filter(|&count| count > 0).min()?;
        Some(fewest as usize - 1)
    }

    fn connections(&self) -> impl Iterator<Item = u64> {
        let present = self.workers.iter().map(|cell| cell.load(Ordering::Relaxed));
        present.map(|count| count.saturating_sub(1))
    }

    /// All of it in one line.
    pub fn line(&self) -> String {
        let mut line = String::from("statistics:");
        for &(counter, name, _) in Counter::TABLE {
            line.push_str(&format!(" {name}={}", self.get(counter)));
        }
        let connections: Vec<String> = self.connections().map(|count| count.to_string()).collect();
        line.push_str(&format!(" open_connections={}", connections.join("/")));
        line
    }

    /// All of it in the text format of Prometheus.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        for &(counter, name, meaning) in Counter::TABLE {
            let (kind, suffix) = match counter {
                Counter::LargestBatch => ("gauge", ""),
                _ => ("counter", "_total"),
            };
            let value = self.get(counter);
            text.push_str(&format!(
                "# HELP postgrey_{name}{suffix} {meaning}.\n\
                 # TYPE postgrey_{name}{suffix} {kind}\n\
                 postgrey_{name}{suffix} {value}\n"
            ));
        }
        text.push_str("# HELP postgrey_open_connections Connections of a worker.\n");
        text.push_str("# TYPE postgrey_open_connections gauge\n");
        for (worker, count) in self.connections().enumerate() {
            text.push_str(&format!(
                "postgrey_open_connections{{worker=\"{worker}\"}} {count}\n"
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Counters {
        let cells = Box::leak(Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        Counters::new(
            cells,
            Box::leak(Box::new([AtomicU64::new(0), AtomicU64::new(0)])),
        )
    }

    #[test]
    fn every_counter_has_its_row() {
        for (index, &(counter, ..)) in Counter::TABLE.iter().enumerate() {
            assert_eq!(counter as usize, index);
        }
    }

    #[test]
    fn counts_are_shown() {
        let counters = counters();
        counters.add(Counter::Requests, 3);
        counters.add_batch(5, std::time::Duration::from_millis(2));
        counters.add_batch(2, std::time::Duration::from_millis(1));
        assert_eq!(counters.fewest_connections(), None);
        counters.set_connections(0, Some(7));
        assert_eq!(counters.fewest_connections(), Some(7));
        counters.set_connections(1, Some(0));
        assert_eq!(counters.fewest_connections(), Some(0));
        let line = counters.line();
        for part in [
            "requests=3",
            "batches=2",
            "largest_batch=5",
            "open_connections=7/0",
        ] {
            assert!(line.contains(part), "{line}");
        }
        let text = counters.prometheus();
        assert!(text.contains("\npostgrey_requests_total 3\n"), "{text}");
        assert!(
            text.contains("\npostgrey_open_connections{worker=\"0\"} 7\n"),
            "{text}"
        );
    }
}
