//! Rules of [`crate::DeadLetters`].

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::dead_letter::{DeadLetter, DeadLetterId, Forwarding};
use crate::ledger::{Ledger, Settlement};
use crate::suite::stage::{PARTITION, examine, failed, fill, given_up, name, owing, take};
use crate::suite::{Bench, Hands, Setup};

fn give_up(ledger: &Ledger, offset: u64, due: Option<Timestamp>) {
    ledger.settle(offset, Settlement::DeadLettered(given_up(), due), None).expect("it is settled");
}

fn ids(letters: &[Arc<DeadLetter>]) -> Vec<DeadLetterId> {
    letters.iter().map(|letter| letter.id).collect()
}

pub(super) async fn settling_puts_a_dead_letter_in(bench: &dyn Bench) {
    let hands = Hands::at(1_000);
    let (log, ledger) = owing(bench, Setup { clock: hands.clock(), ..Setup::default() }, 2).await;
    let store = log.dead_letters();
    let entries = take(&*log, &ledger, 2).await;
    ledger.attempted(0, failed(1));
    ledger.wait(&entries[0], Timestamp(7)).expect("it waits");
    ledger.due(Timestamp(7), 1);
    ledger.attempted(0, failed(2));
    hands.set(1_234);
    let settlement = Settlement::DeadLettered(given_up(), None);
    ledger.settle(0, settlement.clone(), Some(failed(3))).expect("it is settled");
    ledger.settle(0, settlement, Some(failed(4))).expect("nothing changes");

    let all = store.list(None, None, 10).await;
    assert_eq!(all.len(), 1, "settling twice puts in one");
    let letter = store.get(all[0].id).await.expect("it is there");
    assert_eq!((&letter.trigger, letter.position), (&name("t"), entries[0].position));
    assert_eq!(letter.entry.as_ref().expect("it has a body").event, entries[0].event);
    assert_eq!(letter.attempts, [failed(1), failed(2), failed(3)]);
    assert_eq!((letter.attempts_made, letter.at), (3, hands.now()));
    assert_eq!((&letter.reason, &letter.forwarding), (&given_up(), &Forwarding::Kept));
    assert_eq!((store.count(&name("t")), store.count(&name("other"))), (1, 0));
    assert!(ledger.counts().holds());

    assert_eq!(store.remove(letter.id), Ok(true));
    assert_eq!(store.remove(letter.id), Ok(false));
    assert!(store.get(letter.id).await.is_none());
    assert_eq!(store.set_forwarding(letter.id, Forwarding::Kept), Ok(false));
    assert_eq!(store.count(&name("t")), 0);
    assert_eq!(ledger.counts().dead_lettered, 1, "the count of settlements never falls");
    give_up(&ledger, 1, None);
    assert!(store.list(None, None, 10).await[0].id > letter.id, "a number is never used again");
}

pub(super) async fn dead_letters_are_listed_in_pages(bench: &dyn Bench) {
    let (log, first) = owing(bench, Setup::default(), 5).await;
    let second = log.ledger(PARTITION, log.trigger(&name("u")));
    let range = fill(&*log, 5).await;
    examine(&*log, range, |_| vec![first.trigger(), second.trigger()]);
    let store = log.dead_letters();
    for ledger in [&first, &second] {
        for entry in take(&*log, ledger, 100).await {
            give_up(ledger, entry.position.offset, None);
        }
    }
    let all = ids(&store.list(None, None, 100).await);
    assert_eq!(all.len(), 15);
    assert!(all.is_sorted());
    assert_eq!(ids(&store.list(None, Some(all[3]), 4).await), all[4..8]);
    assert_eq!(ids(&store.list(None, Some(all[14]), 4).await), []);
    let of_second = ids(&store.list(Some(&name("u")), None, 100).await);
    assert_eq!(of_second.len(), 5);
    assert_eq!(ids(&store.list(Some(&name("u")), Some(of_second[1]), 2).await), of_second[2..4]);
    assert_eq!(ids(&store.list(Some(&name("nobody")), None, 100).await), []);
    assert_eq!((store.count(&name("t")), store.count(&name("u"))), (10, 5));
}

pub(super) async fn forwarding_is_due_in_order(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 4).await;
    let (store, trigger) = (log.dead_letters(), name("t"));
    take(&*log, &ledger, 4).await;
    for (offset, due) in [(0, Some(30)), (1, None), (2, Some(10)), (3, Some(20))] {
        give_up(&ledger, offset, due.map(Timestamp));
    }
    let all = ids(&store.list(None, None, 10).await);
    assert_eq!(store.next_due(&trigger), Some(Timestamp(10)));
    assert_eq!(store.due(&trigger, Timestamp(9), 10), []);
    assert_eq!(store.due(&trigger, Timestamp(30), 10), [all[2], all[3], all[0]]);
    assert_eq!(store.due(&trigger, Timestamp(30), 1), [all[2]]);
    assert_eq!(
        store.get(all[2]).await.expect("it is there").forwarding,
        Forwarding::Waiting { attempts: 0, due: Timestamp(10) }
    );

    let later = Forwarding::Waiting { attempts: 1, due: Timestamp(40) };
    assert_eq!(store.set_forwarding(all[2], later.clone()), Ok(true));
    assert_eq!(store.get(all[2]).await.expect("it is there").forwarding, later);
    let given_up = Forwarding::GivenUp { attempts: 1, detail: "no".to_owned() };
    assert_eq!(store.set_forwarding(all[3], given_up), Ok(true));
    assert_eq!(store.due(&trigger, Timestamp(99), 10), [all[0], all[2]]);
    assert_eq!(store.remove(all[0]), Ok(true));
    assert_eq!(store.next_due(&trigger), Some(Timestamp(40)));
    assert_eq!(store.remove(all[2]), Ok(true));
    assert_eq!((store.next_due(&trigger), store.count(&trigger)), (None, 2));
    assert_eq!(store.next_due(&name("nobody")), None);
}

pub(super) async fn a_dead_letter_outlives_its_record_and_its_trigger(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 2).await;
    let entries = take(&*log, &ledger, 2).await;
    let event = entries[0].event.clone();
    drop(entries);
    give_up(&ledger, 0, None);
    ledger.settle(1, Settlement::Delivered, None).expect("it is settled");
    log.trim().await;
    log.forget(ledger.trigger());
    log.trim().await;
    let letters = log.dead_letters().list(Some(&name("t")), None, 10).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].entry.as_ref().expect("it has a body").event, event);
}
