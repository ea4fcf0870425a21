//! What a server with one connection does with a request, without the server: the
//! pure policy on a store.

use std::sync::atomic::AtomicU64;

use postgrey::policy::decide::{Decision, Examined, Policy, Surroundings};
use postgrey::policy::held::Held;
use postgrey::policy::instances::Instances;
use postgrey::policy::newcomers::Newcomers;
use postgrey::policy::request::Request;
use postgrey::policy::triplet::Keys;
use postgrey::store::Store;

/// A table of held mails with nothing in it.
pub fn no_mails() -> Box<[AtomicU64; Held::CELLS]> {
    let cells: Vec<AtomicU64> = (0..Held::CELLS).map(|_| AtomicU64::new(0)).collect();
    cells.try_into().unwrap()
}

/// The reply at this time of a server that has counted these, without `action=` and line ends, and the lines of the log.
pub fn answer(
    policy: &Policy,
    store: &mut dyn Store,
    request: &Request,
    clock: f64,
    held: Held,
    instances: Instances,
    newcomers: Option<&mut Newcomers>,
) -> (String, Vec<String>) {
    let mut keys = Keys::default();
    let decision = match policy.examine(request, clock, &mut keys) {
        Examined::Decided(decision) => decision,
        Examined::NeedsStore(mut command) => {
            let mut outcomes = Vec::new();
            if let Some(newcomers) = &newcomers {
                newcomers.allow(&mut command);
            }
            store
                .apply_batch(&policy.rules, &[command], &mut outcomes)
                .unwrap();
            let outcome = outcomes[0].unwrap();
            if let Some(newcomers) = newcomers {
                newcomers.note(&command, &outcome);
            }
            Decision::Stored(outcome)
        }
    };
    let decision = policy.settle(request, decision, held, clock);
    let surroundings = Surroundings {
        instances,
        version: "0",
        date: &|_| {},
    };
    let (mut reply, mut log) = (Vec::new(), Vec::new());
    policy.answer(
        request,
        &decision,
        &surroundings,
        &mut reply,
        &mut Vec::new(),
        &mut |_, line| log.push(String::from_utf8(line.to_vec()).unwrap()),
    );
    let reply = String::from_utf8(reply).unwrap();
    let reply = reply.trim_end().strip_prefix("action=").unwrap();
    (reply.to_owned(), log)
}
