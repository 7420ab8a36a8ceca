//! Rules of [`crate::DeadLetters`].

use std::sync::Arc;

use waypost_core::codes;

use crate::clock::Timestamp;
use crate::dead_letter::{DeadLetter, DeadLetterId, FailedAgain, Forwarding, LetterSelection, RedriveId};
use crate::ledger::{ATTEMPTS_KEPT, AcceptedOutputs, Ledger, Settlement};
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
    assert_eq!(letter.entry().expect("it has a body").event, entries[0].event);
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
    assert_eq!(letters[0].entry().expect("it has a body").event, event);
}

pub(super) async fn dead_letters_are_selected(bench: &dyn Bench) {
    let hands = Hands::at(0);
    let (log, first) = owing(bench, Setup { clock: hands.clock(), ..Setup::default() }, 6).await;
    let second = log.ledger(PARTITION, log.trigger(&name("u")));
    let range = fill(&*log, 1).await;
    examine(&*log, range, |_| vec![second.trigger()]);
    take(&*log, &first, 6).await;
    for offset in 0..6 {
        hands.set(i64::try_from(offset).expect("small") * 10);
        let code = if offset < 3 { codes::SUBSCRIBER_TIMEOUT } else { codes::SUBSCRIBER_STATUS_PERMANENT };
        let reason = crate::DeadLetterReason { code, ..given_up() };
        first.settle(offset, Settlement::DeadLettered(reason, None), None).expect("it is settled");
    }
    for entry in take(&*log, &second, 1).await {
        give_up(&second, entry.position.offset, None);
    }
    let store = log.dead_letters();
    assert_eq!(store.triggers(), [name("t"), name("u")]);
    let all = store.select(&LetterSelection::default(), None, 100).await;
    assert_eq!(all, ids(&store.list(None, None, 100).await));
    assert_eq!(all.len(), 7);
    let of = LetterSelection { trigger: Some(name("t")), ..LetterSelection::default() };
    assert_eq!(store.select(&of, None, 100).await, all[..6]);
    assert_eq!(store.select(&of, Some(all[1]), 2).await, all[2..4]);
    let code = LetterSelection { code: Some(codes::SUBSCRIBER_TIMEOUT), ..LetterSelection::default() };
    assert_eq!(store.select(&code, None, 100).await, all[..3]);
    let [since, until] = [10, 30].map(|seconds| Some(Hands::at(seconds).now()));
    let time = LetterSelection { since, until, ..LetterSelection::default() };
    assert_eq!(store.select(&time, None, 100).await, all[1..3]);
    let event_type = |wanted: &str| LetterSelection { event_type: Some(wanted.to_owned()), ..of.clone() };
    for _ in 0..2 {
        assert_eq!(store.select(&event_type("suite.record"), None, 4).await, all[..4]);
        assert_eq!(store.select(&event_type("suite"), None, 4).await, []);
    }
    let through = LetterSelection { through: Some(all[4]), ..of.clone() };
    assert_eq!(store.select(&through, Some(all[2]), 100).await, all[3..5]);
    assert_eq!(store.select(&through, Some(all[4]), 100).await, []);
    assert_eq!(store.select(&through, Some(all[6]), 100).await, []);
    let nobody = LetterSelection { trigger: Some(name("nobody")), ..through };
    assert_eq!(store.select(&nobody, None, 100).await, []);
}

pub(super) async fn accepted_outputs_are_noted_until_the_debt_is_settled(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 3).await;
    take(&*log, &ledger, 2).await;
    let outputs = |chain, outputs| AcceptedOutputs { chain, outputs };
    assert_eq!(ledger.accepted(0), None);
    ledger.accept(0, outputs(7, 1));
    ledger.accept(0, outputs(7, 2));
    ledger.accept(1, outputs(7, 5));
    ledger.accept(2, outputs(7, 1));
    assert_eq!((ledger.accepted(0), ledger.accepted(2)), (Some(outputs(7, 2)), None), "one was not taken");
    assert_eq!((outputs(7, 2).by(7), outputs(7, 2).by(8)), (2, 0), "other transformations start over");
    give_up(&ledger, 0, None);
    let all = log.dead_letters().list(None, None, 9).await;
    assert_eq!(all[0].accepted, Some(outputs(7, 2)), "the letter tells what is owed");
    let failure = |accepted| FailedAgain {
        redrive: RedriveId(7),
        reason: given_up(),
        attempts: Vec::new(),
        at: Timestamp(5_000),
        accepted,
    };
    for (accepted, expected) in [(None, outputs(7, 2)), (Some(outputs(8, 1)), outputs(8, 1))] {
        assert_eq!(log.dead_letters().failed_again(all[0].id, &failure(accepted)), Ok(true));
        let letter = log.dead_letters().get(all[0].id).await.expect("it stays");
        assert_eq!(letter.accepted, Some(expected));
    }
    ledger.settle(1, Settlement::Delivered, None).expect("it is settled");
    ledger.accept(1, outputs(7, 5));
    assert_eq!((ledger.accepted(0), ledger.accepted(1)), (None, None));
}

pub(super) async fn a_dead_letter_that_fails_again_stays(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 2).await;
    take(&*log, &ledger, 2).await;
    let forwarded_at = Timestamp(30);
    ledger.attempted(0, failed(1));
    give_up(&ledger, 0, Some(forwarded_at));
    give_up(&ledger, 1, None);
    let store = log.dead_letters();
    let all = ids(&store.list(None, None, 10).await);
    let reason = crate::DeadLetterReason { detail: "again".to_owned(), ..given_up() };
    let failure = |redrive, attempts: Vec<_>| FailedAgain {
        redrive: RedriveId(redrive),
        reason: reason.clone(),
        attempts,
        at: Timestamp(5_000),
        accepted: None,
    };
    assert_eq!(store.failed_again(all[0], &failure(7, vec![failed(2), failed(3)])), Ok(true));
    let letter = store.get(all[0]).await.expect("it stays");
    assert_eq!((&letter.reason, letter.at), (&reason, Timestamp(5_000)));
    assert_eq!(letter.attempts, [failed(1), failed(2), failed(3)]);
    assert_eq!((letter.attempts_made, letter.redriven), (3, Some(RedriveId(7))));
    assert_eq!(letter.forwarding, Forwarding::Waiting { attempts: 0, due: forwarded_at });
    assert_eq!(store.due(&name("t"), forwarded_at, 9), [all[0]], "it is forwarded as before");

    let open_to =
        |redrive| LetterSelection { open_to: Some(RedriveId(redrive)), ..LetterSelection::default() };
    assert_eq!(store.select(&open_to(7), None, 9).await, all[1..]);
    assert_eq!(store.select(&open_to(6), None, 9).await, all[1..], "a later one tried it");
    assert_eq!(store.select(&open_to(8), None, 9).await, all);
    assert_eq!([6, 7, 8].map(|redrive| store.count_failed(RedriveId(redrive))), [1, 1, 0]);

    let many = (4..40).map(failed).collect();
    assert_eq!(store.failed_again(all[0], &failure(6, many)), Ok(true));
    let letter = store.get(all[0]).await.expect("it stays");
    assert_eq!((letter.attempts.len(), letter.attempts_made), (ATTEMPTS_KEPT, 39));
    assert_eq!(letter.attempts.last(), Some(&failed(39)));
    assert_eq!(letter.redriven, Some(RedriveId(7)), "the newest redrive that tried it");
    assert_eq!(store.remove(all[0]), Ok(true));
    assert_eq!(store.failed_again(all[0], &failure(9, Vec::new())), Ok(false));
}

pub(super) async fn one_sends_a_dead_letter_at_a_time(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 2).await;
    take(&*log, &ledger, 2).await;
    give_up(&ledger, 0, Some(Timestamp(10)));
    give_up(&ledger, 1, Some(Timestamp(20)));
    let (store, trigger) = (log.dead_letters(), name("t"));
    let all = ids(&store.list(None, None, 10).await);
    let claim = store.claims().take(all[0]).expect("nobody has it");
    assert!(log.dead_letters().claims().take(all[0]).is_none());
    assert_eq!(store.due(&trigger, Timestamp(99), 9), all[1..]);
    assert_eq!(store.next_due(&trigger), Some(Timestamp(10)));
    drop(claim);
    assert_eq!(store.due(&trigger, Timestamp(99), 9), all);
}
