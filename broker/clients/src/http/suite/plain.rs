use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::sync::Notify;
use waypost_core::codes;

use super::super::*;
use super::server::{ACCEPTED, Server, Step, say};

fn pool() -> Arc<Pool> {
    Arc::new(Pool::new(PoolOptions::default()))
}

fn target(server: &Server) -> Target {
    Target::parse(&format!("http://{}/path?query", server.address), None).expect("a URL")
}

pub(super) fn request(target: &Target, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(target.uri().clone())
        .header("host", target.host_header().clone())
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .expect("a request")
}

async fn post(lane: &mut Lane) -> Result<(StatusCode, Body), SendError> {
    let request = request(lane.target(), "hello");
    let (parts, body) = lane.send(request).await?.read(1024).await?;
    Ok((parts.status, body))
}

fn answers(count: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = (0..count).flat_map(|_| [Step::Take, say(ACCEPTED)]).collect();
    steps.push(Step::Hold);
    steps
}

#[tokio::test]
async fn a_lane_keeps_its_connection() {
    let server = Server::plain([answers(3)]).await;
    let target = target(&server);
    let mut lane = pool().lane(&target);
    for _ in 0..3 {
        let (status, body) = post(&mut lane).await.expect("an answer");
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(body, Body { bytes: Bytes::new(), is_cut: false });
    }
    assert_eq!(server.connections(), 1);
    let expected =
        format!("POST /path?query HTTP/1.1\r\nhost: {}\r\ncontent-length: 5\r\n\r\nhello", server.address);
    assert_eq!(server.requests(), vec![expected; 3]);
}

#[tokio::test]
async fn a_dropped_lane_leaves_its_connection_to_the_next() {
    let server = Server::plain([answers(2), answers(1)]).await;
    let (pool, target) = (pool(), target(&server));
    let mut first = pool.lane(&target);
    post(&mut first).await.expect("an answer");
    assert_eq!(pool.idle_count(), 0);
    drop(first);
    assert_eq!(pool.idle_count(), 1);
    let mut second = pool.lane(&target);
    post(&mut second).await.expect("an answer");
    assert_eq!((server.connections(), pool.idle_count()), (1, 0));
    // Another lane at the same time has a connection of its own.
    post(&mut pool.lane(&target)).await.expect("an answer");
    assert_eq!((server.connections(), pool.idle_count()), (2, 1));
}

#[tokio::test]
async fn lanes_to_another_authority_share_nothing() {
    let (one, two) = (Server::plain([answers(1)]).await, Server::plain([answers(1)]).await);
    let pool = pool();
    post(&mut pool.lane(&target(&one))).await.expect("an answer");
    post(&mut pool.lane(&target(&two))).await.expect("an answer");
    assert_eq!((one.connections(), two.connections(), pool.idle_count()), (1, 1, 2));
}

#[tokio::test]
async fn a_request_on_a_closed_idle_connection_goes_out_on_a_new_one() {
    for idle_in_pool in [false, true] {
        let server = Server::plain([vec![Step::Take, say(ACCEPTED)], answers(1)]).await;
        let (pool, target) = (pool(), target(&server));
        let mut lane = pool.lane(&target);
        post(&mut lane).await.expect("an answer");
        if idle_in_pool {
            lane = pool.lane(&target);
        }
        server.closed().await;
        let (status, _) = post(&mut lane).await.expect("an answer from the second connection");
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!((server.connections(), server.requests().len()), (2, 2));
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_received_is_not_sent_again() {
    let scripts = [vec![Step::Take, say(ACCEPTED), Step::Take], answers(1)];
    let server = Server::plain(scripts).await;
    let mut lane = pool().lane(&target(&server));
    post(&mut lane).await.expect("an answer");
    let error = post(&mut lane).await.expect_err("the connection closes in flight");
    assert!(matches!(error, SendError::Broken { .. }), "{error:?}");
    assert_eq!(classify(&error).code, codes::SUBSCRIBER_UNREACHABLE);
    assert_eq!((server.connections(), server.requests().len()), (1, 2));
    post(&mut lane).await.expect("the next request opens another connection");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_reset_in_flight_is_a_failure() {
    let server = Server::plain([vec![Step::Reset]]).await;
    let error = post(&mut pool().lane(&target(&server))).await.expect_err("a reset");
    assert!(matches!(error, SendError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let unused =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let target = Target::parse(&format!("http://{unused}"), None).expect("a URL");
    let failure = classify(&post(&mut pool().lane(&target)).await.expect_err("nobody listens"));
    assert_eq!(failure.code, codes::SUBSCRIBER_UNREACHABLE);
    assert!(failure.congested);
    assert!(failure.detail.contains("nothing listens there"), "{failure}");
}

#[tokio::test]
async fn a_host_without_address_is_told_by_name() {
    let target = Target::parse("http://no-such-host.invalid/", None).expect("a URL");
    let error = post(&mut pool().lane(&target)).await.expect_err("no such host");
    // A machine without a name server may also answer with silence.
    let told = matches!(error, SendError::Resolve { .. } | SendError::ConnectTimeout { .. });
    assert!(told, "{error:?}");
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn what_is_not_http_is_told_apart() {
    for garbage in
        ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nbad header\r\n\r\n"]
    {
        let server = Server::plain([vec![Step::Take, say(garbage), Step::Hold]]).await;
        let mut lane = pool().lane(&target(&server));
        let error = post(&mut lane).await.expect_err(garbage);
        assert!(matches!(error, SendError::NotHttp { .. }), "{garbage}: {error:?}");
        assert_eq!(classify(&error).code, codes::SUBSCRIBER_NOT_HTTP);
    }
}

#[tokio::test]
async fn an_answer_in_small_pieces_is_put_together() {
    let go_on = Arc::new(Notify::new());
    let wait = || Step::Wait(Arc::clone(&go_on));
    let script = vec![
        Step::Take,
        say("HTTP/1.1 200 O"),
        wait(),
        say("K\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        wait(),
        say("2\r\nde\r\n0\r\n\r\n"),
        Step::Take,
        say(ACCEPTED),
        Step::Hold,
    ];
    let server = Server::plain([script]).await;
    let mut lane = pool().lane(&target(&server));
    let mut go_ons = tokio::task::JoinSet::new();
    let signal = Arc::clone(&go_on);
    go_ons.spawn(async move {
        for _ in 0..2 {
            tokio::task::yield_now().await;
            signal.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (status, body) = post(&mut lane).await.expect("an answer");
    assert_eq!((status, &*body.bytes, body.is_cut), (StatusCode::OK, &b"abcde"[..], false));
    post(&mut lane).await.expect("the same connection serves again");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn informational_answers_are_passed_over() {
    let early = format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{ACCEPTED}");
    let server = Server::plain([vec![Step::Take, say(early), Step::Hold]]).await;
    let (status, _) = post(&mut pool().lane(&target(&server))).await.expect("an answer");
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_answer_may_have_as_many_headers_as_an_event_has_attributes() {
    let headers: String = (0..waypost_core::event::MAX_ATTRIBUTES)
        .map(|number| format!("ce-a{number}: {number}\r\n"))
        .collect();
    let answer = format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n");
    let server = Server::plain([vec![Step::Take, say(answer), Step::Hold]]).await;
    let mut lane = pool().lane(&target(&server));
    let request = request(lane.target(), "");
    let received = lane.send(request).await.expect("an answer");
    assert_eq!(received.headers().len(), waypost_core::event::MAX_ATTRIBUTES + 1);
}

fn sized(length: usize) -> String {
    format!("HTTP/1.1 500 Oh\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length))
}

#[tokio::test]
async fn a_long_body_is_cut_and_costs_the_connection_only_where_it_is_very_long() {
    for (length, kept, is_cut, reused) in [
        (1024, 1024, false, true),
        (1025, 1024, true, true),
        (DRAIN_BYTES, 1024, true, true),
        (DRAIN_BYTES * 4, 1024, true, false),
    ] {
        let script = vec![Step::Take, say(sized(length)), Step::Take, say(ACCEPTED), Step::Hold];
        let server = Server::plain([script, answers(1)]).await;
        let mut lane = pool().lane(&target(&server));
        let (status, body) = post(&mut lane).await.expect("an answer");
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!((body.bytes.len(), body.is_cut), (kept, is_cut), "{length}");
        post(&mut lane).await.expect("another answer");
        assert_eq!(server.connections(), if reused { 1 } else { 2 }, "{length}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure() {
    let server =
        Server::plain([vec![Step::Take, say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc")], answers(1)])
            .await;
    let mut lane = pool().lane(&target(&server));
    let error = post(&mut lane).await.expect_err("half a body");
    assert!(matches!(error, SendError::Broken { .. }), "{error:?}");
    post(&mut lane).await.expect("another connection");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_discarded_body_is_told_from_none() {
    let ok = |length: usize| {
        say(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length)))
    };
    let endless = say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let script = vec![Step::Take, ok(0), Step::Take, ok(2), Step::Take, endless, Step::Hold];
    let server = Server::plain([script, answers(1)]).await;
    let mut lane = pool().lane(&target(&server));
    let mut had_body = Vec::new();
    for _ in 0..4 {
        let request = request(lane.target(), "hello");
        had_body.push(lane.send(request).await.expect("an answer").discard().await);
    }
    assert_eq!(had_body, [false, true, true, false]);
    assert_eq!(server.connections(), 2, "a body without end costs the connection");
}

#[tokio::test]
async fn an_answer_that_says_close_ends_the_connection() {
    let close = say("HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let server = Server::plain([vec![Step::Take, close, Step::Hold], answers(1)]).await;
    let (pool, target) = (pool(), target(&server));
    let mut lane = pool.lane(&target);
    post(&mut lane).await.expect("an answer");
    post(&mut lane).await.expect("an answer");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_dropped_call_closes_its_connection() {
    let server = Server::plain([vec![Step::Take, Step::Hold], answers(1)]).await;
    let (pool, target) = (pool(), target(&server));
    let mut lane = pool.lane(&target);
    let cut = tokio::time::timeout(Duration::from_millis(50), post(&mut lane)).await;
    assert!(cut.is_err());
    server.closed().await;
    post(&mut lane).await.expect("an answer on another connection");
    assert_eq!(server.connections(), 2);
    // An answer whose body is never read costs the connection too.
    drop(lane);
    assert_eq!(pool.idle_count(), 1);
}

#[tokio::test]
async fn an_unread_answer_closes_its_connection() {
    let server = Server::plain([answers(1)]).await;
    let (pool, target) = (pool(), target(&server));
    let mut lane = pool.lane(&target);
    let request = request(&target, "hello");
    drop(lane.send(request).await.expect("an answer"));
    drop(lane);
    server.closed().await;
    assert_eq!(pool.idle_count(), 0);
}

#[tokio::test]
async fn idle_connections_are_bounded_per_authority_and_in_all() {
    let options = PoolOptions { idle_per_authority: 2, idle_in_all: 3, ..PoolOptions::default() };
    let pool = Arc::new(Pool::new(options));
    let mut servers = Vec::new();
    for expected in [2, 3] {
        let server = Server::plain(vec![answers(1); 3]).await;
        let mut lanes: Vec<Lane> = (0..3).map(|_| pool.lane(&target(&server))).collect();
        for lane in &mut lanes {
            post(lane).await.expect("an answer");
        }
        drop(lanes);
        assert_eq!(pool.idle_count(), expected);
        servers.push(server);
    }
}

#[tokio::test]
async fn idle_connections_end_after_their_time() {
    let options = PoolOptions { idle_timeout: Duration::ZERO, ..PoolOptions::default() };
    let pool = Arc::new(Pool::new(options));
    let server = Server::plain([answers(1)]).await;
    post(&mut pool.lane(&target(&server))).await.expect("an answer");
    assert_eq!(pool.idle_count(), 0);

    let announced = say("HTTP/1.1 202 Accepted\r\nkeep-alive: max=5, Timeout=1\r\ncontent-length: 0\r\n\r\n");
    let server = Server::plain([vec![Step::Take, announced, Step::Hold]]).await;
    let pool = Arc::new(Pool::new(PoolOptions::default()));
    post(&mut pool.lane(&target(&server))).await.expect("an answer");
    assert_eq!(pool.idle_count(), 0, "the server keeps it for a second, which is too short to rely on");
}

#[tokio::test]
async fn a_sweep_closes_what_the_other_side_has_closed() {
    let server = Server::plain([vec![Step::Take, say(ACCEPTED)], answers(1)]).await;
    let (pool, target) = (pool(), target(&server));
    let mut lanes = [pool.lane(&target), pool.lane(&target)];
    for lane in &mut lanes {
        post(lane).await.expect("an answer");
    }
    server.closed().await;
    drop(lanes);
    // The close may have been seen when the lane was dropped, and must be seen by the sweep.
    tokio::task::yield_now().await;
    pool.sweep();
    assert_eq!(pool.idle_count(), 1);
}

#[tokio::test]
async fn a_connection_that_is_never_taken_times_out() {
    // The backlog of a listener that nobody accepts from takes the connection; TLS never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let limit = Duration::from_millis(50);
    let pool = Arc::new(Pool::new(PoolOptions { connect_timeout: limit, ..PoolOptions::default() }));
    let certificate = super::tls::Identity::new(&["127.0.0.1"]);
    let target = Target::parse(&format!("https://{address}"), Some(&certificate.pem)).expect("a URL");
    let error = post(&mut pool.lane(&target)).await.expect_err("silence");
    assert!(matches!(error, SendError::ConnectTimeout { .. }), "{error:?}");
    assert_eq!(classify(&error).code, codes::SUBSCRIBER_TIMEOUT);
}

#[tokio::test]
async fn an_idle_connection_is_closed_for_one_that_needs_its_place() {
    let pool = Arc::new(Pool::new(PoolOptions::with_open_in_all(2)));
    let servers = [Server::plain([answers(1)]).await, Server::plain([answers(1)]).await];
    let third = Server::plain([answers(1)]).await;
    for server in &servers {
        post(&mut pool.lane(&target(server))).await.expect("an answer");
    }
    assert_eq!(pool.idle_count(), 2);
    let mut lane = pool.lane(&target(&third));
    post(&mut lane).await.expect("an answer");
    servers[0].closed().await;
    assert_eq!((pool.idle_count(), pool.is_crowded()), (1, false));
    drop(lane);
    assert_eq!(pool.idle_count(), 2);
}

#[tokio::test]
async fn a_busy_lane_keeps_its_place_from_one_that_waits_for_a_moment_only() {
    let pool = Arc::new(Pool::new(PoolOptions::with_open_in_all(1)));
    let (busy, other) = (Server::plain([answers(2), answers(1)]).await, Server::plain([answers(1)]).await);
    let mut lane = pool.lane(&target(&busy));
    let mut one_more = pool.lane(&target(&other));
    post(&mut lane).await.expect("an answer");
    {
        let mut waiting = pin!(post(&mut one_more));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert!(pool.is_crowded());
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        post(&mut lane).await.expect("an answer");
        busy.closed().await;
        waiting.await.expect("an answer");
    }
    assert!(!pool.is_crowded());
    // The other one keeps it now that nobody waits.
    drop(one_more);
    assert_eq!(pool.idle_count(), 1);
    post(&mut lane).await.expect("an answer");
    assert_eq!((busy.connections(), other.connections()), (2, 1));
}

#[tokio::test]
async fn a_new_connection_is_used_again_though_one_waits_for_its_place() {
    let pool = Arc::new(Pool::new(PoolOptions::with_open_in_all(1)));
    let (busy, other) = (Server::plain([answers(20)]).await, Server::plain([answers(1)]).await);
    let (mut lane, mut one_more) = (pool.lane(&target(&busy)), pool.lane(&target(&other)));
    post(&mut lane).await.expect("an answer");
    let mut waiting = pin!(post(&mut one_more));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    // However slow the machine is, no time passes.
    tokio::time::pause();
    post(&mut lane).await.expect("an answer");
    tokio::time::resume();
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    assert!(pool.is_crowded());
    drop(lane);
    waiting.await.expect("an answer");
}

#[tokio::test]
async fn a_call_dropped_for_want_of_a_place_says_so() {
    let pool = Arc::new(Pool::new(PoolOptions::with_open_in_all(1)));
    let (held, other) = (Server::plain([answers(1)]).await, Server::plain([answers(1)]).await);
    let mut holding = pool.lane(&target(&held));
    post(&mut holding).await.expect("an answer");
    let mut lane = pool.lane(&target(&other));
    assert!(lane.crowded_out().is_none());
    tokio::time::timeout(Duration::from_millis(1), post(&mut lane)).await.expect_err("it waits");
    let error = lane.crowded_out().expect("it was for want of a place");
    assert_eq!(classify(&error).class, waypost_core::Class::Misconfigured, "no attempt is spent for it");
    assert_eq!(other.connections(), 0);
    drop(holding);
    post(&mut lane).await.expect("an answer");
    assert!(lane.crowded_out().is_none());
}

#[test]
fn those_that_open_connections_to_one_authority_leave_places_to_others() {
    let few = PoolOptions::with_open_in_all(40);
    assert_eq!((few.opening_per_authority, few.open_in_all), (10, 40));
    assert_eq!(PoolOptions::with_open_in_all(usize::MAX), PoolOptions::default());
}
