use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// A key of nobody, made for this test.
const KEY: &str = include_str!("test-key.pem");

fn file(kind: &str, key: &str) -> String {
    serde_json::json!({
        "type": kind, "client_email": "waypost@shop.iam.gserviceaccount.com", "private_key": key, "private_key_id": "k1",
    })
    .to_string()
}

#[tokio::test]
async fn a_token_is_signed_by_the_key_for_the_service_and_kept() {
    let credentials = Credentials::of_key(&file("service_account", KEY)).unwrap();
    let token = credentials.token().await.unwrap().unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let Origin::Key(key) = &credentials.origin else { panic!("{credentials:?}") };
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.pair.public().as_ref());
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let json = |part: &str| -> serde_json::Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(json(header), serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    let claims = json(claims);
    assert_eq!(claims["iss"], "waypost@shop.iam.gserviceaccount.com");
    assert_eq!((&claims["sub"], &claims["aud"]), (&claims["iss"], &"https://pubsub.googleapis.com/".into()));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3_600);
    assert_eq!(credentials.token().await.unwrap().unwrap(), token);
    assert_eq!(Credentials::none().token().await.unwrap(), None);
}

#[test]
fn what_is_no_key_of_a_service_account_is_told_without_quoting_it() {
    let other = file("authorized_user", KEY);
    let broken = file("service_account", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    for wrong in ["", "hunter2", "{}", &other, &broken] {
        let problem = Credentials::of_key(wrong).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Settings);
        assert!(
            problem.detail.contains("serviceAccountKey") && !problem.detail.contains("hunter2"),
            "{problem}"
        );
    }
}

/// Answers one request with this, and returns what was asked.
async fn answering(answer: &'static str) -> (String, JoinSet<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let mut asked = JoinSet::new();
    asked.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).to_lowercase()
    });
    (url, asked)
}

#[tokio::test]
async fn the_machine_is_asked_for_its_account_and_what_it_says_is_told() {
    let json = r#"HTTP/1.1 200 OK
content-length: 62

{"access_token":"abc","expires_in":3599,"token_type":"Bearer"}"#;
    let (url, mut asked) = answering(json).await;
    let credentials = Credentials::new(Origin::Machine(url));
    assert_eq!(credentials.token().await.unwrap().as_deref(), Some("abc"));
    assert!(asked.join_next().await.unwrap().unwrap().contains("metadata-flavor: google"));
    // The machine is not asked again: nobody would answer.
    assert_eq!(credentials.token().await.unwrap().as_deref(), Some("abc"));
    let (url, _asked) = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let problem = Credentials::new(Origin::Machine(url)).token().await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Unauthorized);
    assert!(problem.detail.contains("404"), "{problem}");
}
