//! Ingestion: what is accepted, what is refused, and the messages.

use std::sync::atomic::AtomicU8;

use kindred_log::{EventReader, LogError, Mark, PartitionStatus, Place, Predicate, Rejected, Share};
use serde_json::json;

use super::*;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const INTERACTIONS: &str = "/v1/events/interactions";

#[tokio::test]
async fn one_record_an_array_and_lines_are_durable_when_answered() {
    let bench = Bench::new().await;
    let one = bench.post(INTERACTIONS, JSON, view("s1", "a").to_string()).await;
    assert_eq!(one.status(), 202);
    assert_eq!(
        body(&one),
        json!({"accepted": 1, "rejected": 0, "position": "i0.1", "results": [{"status": "accepted", "position": "i0.1"}]})
    );
    let array =
        bench.post(INTERACTIONS, "application/json; charset=utf-8", json!([view("s1", "b"), view("s2", "b")]).to_string()).await;
    assert_eq!(body(&array)["position"], "i0.3");
    let lines = format!("{}\r\n\n{}", view("s3", "c"), view("s4", "c"));
    let lines = bench.post(INTERACTIONS, NDJSON, lines).await;
    assert_eq!((&body(&lines)["accepted"], &body(&lines)["position"]), (&json!(2), &json!("i0.5")));
    assert_secured(&lines, "a receipt");

    let order = json!({"order": "o1", "version": 1, "status": "paid", "member": "m", "placed_at": "2026-01-05T10:00:00Z",
        "currency": "EUR", "lines": [{"line": 1, "item": "a", "quantity": 1, "unit_price_minor": 100}]});
    assert_eq!(bench.post("/v1/events/orders", JSON, order.to_string()).await.status(), 202);
    let good = json!({"item": "a", "version": 1, "kind": "good", "title": "A", "listed_at": "2026-03-01T00:00:00Z"});
    assert_eq!(bench.post("/v1/events/catalog", JSON, good.to_string()).await.status(), 202, "an item may be listed ahead");
    let session = json!({"session": "s1", "version": 1, "merged_into": "m"});
    assert_eq!(bench.post("/v1/events/members", JSON, session.to_string()).await.status(), 202);

    let logged = logged(&bench.log).await;
    assert_eq!(logged.len(), 8);
    assert_eq!(bench.log.end().await.unwrap().to_string(), "i0.5-o0.1-c0.1-m0.1");
}

/// The log holds the canonical form: unknown fields are dropped on every path.
#[tokio::test]
async fn the_log_gets_the_record_and_not_the_bytes() {
    let bench = Bench::new().await;
    let mut record = view("s1", "a");
    record["tracking_pixel"] = json!("x".repeat(1_000));
    bench.post(INTERACTIONS, JSON, record.to_string()).await;
    let mut reader = bench.log.reader(Share::ALL).unwrap();
    let mut records = Vec::new();
    reader.poll(10, Duration::ZERO, &mut records).unwrap();
    let expected = r#"{"session":"s1","kind":"view","item":"a","at":"2026-01-05T10:00:00.000Z"}"#;
    assert_eq!(String::from_utf8_lossy(&records[0].payload), expected);
}

#[tokio::test]
async fn a_bad_record_does_not_keep_out_its_neighbours() {
    let bench = Bench::new().await;
    let mut late = view("s1", "a");
    late["at"] = json!("2026-01-05T10:16:13Z");
    let mut just = view("s1", "a");
    just["at"] = json!("2026-01-05T10:16:12Z");
    let mixed =
        json!([view("s1", "a"), {"session": "s1", "kind": "veiw", "item": "a", "at": "2026-01-05T10:00:00Z"}, late, just, 5]);
    let answer = bench.post(INTERACTIONS, JSON, mixed.to_string()).await;
    assert_eq!(answer.status(), 202);
    let receipt = body(&answer);
    assert_eq!((&receipt["accepted"], &receipt["rejected"], &receipt["position"]), (&json!(2), &json!(3), &json!("i0.2")));
    assert_eq!(receipt["results"][1]["error"]["pointer"], "/kind");
    assert!(receipt["results"][1]["error"]["message"].as_str().unwrap().contains("veiw"));
    assert_eq!(receipt["results"][2]["error"]["code"], "ahead_of_clock");
    assert_eq!(receipt["results"][2]["error"]["pointer"], "/at");
    assert_eq!(receipt["results"][3], json!({"status": "accepted", "position": "i0.2"}));
    assert_eq!(logged(&bench.log).await.len(), 2);
}

#[tokio::test]
async fn a_request_without_an_acceptable_record_is_422_and_names_the_fields() {
    let bench = Bench::new().await;
    let order = json!({"order": "o1", "version": 1, "status": "paid", "placed_at": "2026-01-05T10:00:00Z", "currency": "EUR",
        "lines": [{"line": 1, "item": "a", "quantity": 1, "unit_price_minor": 1}, {"line": 2, "item": "a", "quantity": 0, "unit_price_minor": 1}]});
    let single = bench.post("/v1/events/orders", JSON, order.to_string()).await;
    let problem = assert_problem(&single, 422, "invalid_record", "one order");
    assert_eq!(problem["errors"][0]["pointer"], "/lines/1/quantity");
    let array = bench.post(INTERACTIONS, JSON, json!([{"kind": "view"}, {"session": "s"}]).to_string()).await;
    let problem = assert_problem(&array, 422, "invalid_record", "an array");
    assert_eq!((&problem["errors"][0]["pointer"], &problem["errors"][1]["pointer"]), (&json!("/0/member"), &json!("/1/kind")));
    assert_eq!(problem["rejected"], 2);
    for empty in [(JSON, "[]"), (NDJSON, ""), (NDJSON, "\n\n")] {
        assert_problem(&bench.post(INTERACTIONS, empty.0, empty.1).await, 422, "invalid_record", "no record");
    }
    // The list of errors is bounded, their number is exact.
    let many = "{}\n".repeat(500);
    let problem = assert_problem(&bench.post(INTERACTIONS, NDJSON, many).await, 422, "invalid_record", "500 bad lines");
    assert_eq!((problem["errors"].as_array().unwrap().len(), &problem["rejected"]), (100, &json!(500)));
    assert_eq!(logged(&bench.log).await.len(), 0);
}

/// Hostile or broken input: a 4xx each, nothing in the log, no panic.
#[tokio::test]
async fn hostile_bodies_are_refused() {
    let bench = Bench::new().await;
    let with_at = |at: &str| format!(r#"{{"session":"s","kind":"view","item":"a","at":{at}}}"#);
    let rated =
        |rating: &str| format!(r#"{{"session":"s","kind":"view","item":"a","at":"2026-01-05T10:00:00Z","rating":{rating}}}"#);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_field = format!(r#"{{"session":"s","x":{deep}}}"#);
    let line = format!(r#"{{"session":"s","kind":"search","query":"{}","at":"2026-01-05T10:00:00Z"}}"#, "x".repeat(9_000_000));
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        (JSON, b"{".to_vec(), 400),
        (JSON, b"".to_vec(), 400),
        (JSON, b"[{}".to_vec(), 400),
        (JSON, b"{}{}".to_vec(), 400),
        (JSON, b"[{}]x".to_vec(), 400),
        (JSON, b"nul".to_vec(), 400),
        (JSON, b"\xff\xfe{}".to_vec(), 400),
        (JSON, b"{\"session\":\"\xff\"}".to_vec(), 400),
        (JSON, b"[{\"session\":\"\xff\"}]".to_vec(), 400),
        (NDJSON, b"{\"session\":\"\xff\"}".to_vec(), 422),
        (NDJSON, vec![0xff; 1_000], 422),
        (JSON, deep.clone().into_bytes(), 422),
        (JSON, deep_field.clone().into_bytes(), 422),
        (NDJSON, deep_field.into_bytes(), 422),
        (JSON, b"null".to_vec(), 422),
        (JSON, b"\"text\"".to_vec(), 422),
        (JSON, rated("NaN").into_bytes(), 400),
        (JSON, rated("1e999").into_bytes(), 422),
        (JSON, rated("-1").into_bytes(), 422),
        (JSON, with_at("\"1970-01-01T00:00:00Z\"").into_bytes(), 422),
        (JSON, with_at("\"9999-12-31T23:59:59Z\"").into_bytes(), 422),
        (JSON, with_at("99999999999999999999999").into_bytes(), 422),
        (JSON, br#"{"session":"s\u0000","kind":"view","item":"a","at":"2026-01-05T10:00:00Z"}"#.to_vec(), 422),
        (JSON, br#"{"session":"","kind":"view","item":"a","at":"2026-01-05T10:00:00Z"}"#.to_vec(), 422),
        (NDJSON, line.into_bytes(), 422),
    ];
    for (content_type, bytes, status) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = bench.post(INTERACTIONS, content_type, &bytes).await;
        let code = if status == 400 { "malformed_json" } else { "invalid_record" };
        assert_problem(&answer, status, code, &shown);
    }
    assert_eq!(logged(&bench.log).await.len(), 0);
}

#[tokio::test]
async fn other_content_types_are_415() {
    let bench = Bench::new().await;
    let record = view("s", "a").to_string();
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin1"]
    {
        assert_problem(&bench.post(INTERACTIONS, content_type, &record).await, 415, "unsupported_media_type", content_type);
    }
    let none = bench.request(Method::POST, INTERACTIONS).body(&record).reply(&bench.public).await;
    assert_problem(&none, 415, "unsupported_media_type", "no content type");
    let zipped = bench.request(Method::POST, INTERACTIONS).header("content-type", JSON).header("content-encoding", "gzip");
    assert_problem(&zipped.body(&record).reply(&bench.public).await, 415, "unsupported_media_type", "gzip");
    assert_eq!(logged(&bench.log).await.len(), 0);
}

#[tokio::test]
async fn bodies_and_batches_are_bounded() {
    let bench = Bench::with(
        |limits| {
            limits.body_bytes = 2_000;
            limits.records = 3;
        },
        |_| {},
    )
    .await;
    let record = view("s", "a");
    let large = format!("{}{}", record, " ".repeat(2_000));
    assert_problem(&bench.post(INTERACTIONS, JSON, large).await, 413, "payload_too_large", "bytes");
    let four = json!([record, record, record, record]).to_string();
    assert_problem(&bench.post(INTERACTIONS, JSON, four).await, 413, "payload_too_large", "an array of four");
    let lines = format!("{record}\n").repeat(4);
    assert_problem(&bench.post(INTERACTIONS, NDJSON, lines).await, 413, "payload_too_large", "four lines");
    assert_eq!(logged(&bench.log).await.len(), 0);
    assert_eq!(bench.post(INTERACTIONS, JSON, json!([record, record, record]).to_string()).await.status(), 202);
}

/// A log that answers like a full disk, a lost broker or a damaged file.
struct Failing {
    how: AtomicU8,
}

#[async_trait]
impl EventLog for Failing {
    fn identity(&self) -> &str {
        "failing"
    }
    fn compacts(&self) -> bool {
        false
    }
    async fn append(&self, _: Topic, _: Vec<Vec<u8>>, _: Option<Mark>) -> Result<Vec<Place>, LogError> {
        let reason = "/dev/secret/path".to_owned();
        Err(match self.how.load(Ordering::Relaxed) {
            0 => LogError::Full(reason),
            1 => LogError::Unavailable(reason),
            2 => LogError::Refused("a record of 2 GB".to_owned()),
            _ => LogError::Corrupt(reason),
        })
    }
    async fn mark(&self, _: &str) -> Result<Option<u64>, LogError> {
        Ok(None)
    }
    fn reader(&self, _: Share) -> Result<Box<dyn EventReader>, LogError> {
        Err(LogError::Refused("nothing to read".to_owned()))
    }
    async fn end(&self) -> Result<Position, LogError> {
        Ok(Position::beginning())
    }
    async fn partitions(&self) -> Result<Vec<PartitionStatus>, LogError> {
        Ok(Vec::new())
    }
    fn disk_bytes(&self) -> Option<u64> {
        None
    }
    async fn reject(&self, _: Vec<Rejected>) -> Result<(), LogError> {
        Ok(())
    }
    async fn rejected(&self, _: Option<&str>, _: usize) -> Result<Vec<Rejected>, LogError> {
        Ok(Vec::new())
    }
    async fn rejected_one(&self, _: &str) -> Result<Option<Rejected>, LogError> {
        Ok(None)
    }
    async fn rejected_remove(&self, _: &[String]) -> Result<(), LogError> {
        Ok(())
    }
    async fn purge(&self, _: Topic, _: &Position, _: &Predicate<'_>) -> Result<u64, LogError> {
        Ok(0)
    }
}

/// A full disk is 507, a lost log 503; a session may post again after a failure.
#[tokio::test]
async fn what_the_log_says_becomes_the_status() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(Failing { how: AtomicU8::new(0) });
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("store")).unwrap());
    let bench = Bench::over(log.clone(), store, dir, |limits| limits.records_per_session_hour = 1, |_| {}).await;
    let record = view("s", "a").to_string();
    for (how, status, code) in
        [(0, 507, "insufficient_storage"), (1, 503, "unavailable"), (2, 422, "log_refused"), (3, 500, "internal")]
    {
        log.how.store(how, Ordering::Relaxed);
        let answer = bench.post(INTERACTIONS, JSON, &record).await;
        let problem = assert_problem(&answer, status, code, code);
        assert!(!problem.to_string().contains("secret"), "the answer tells of our files");
        assert_eq!(answer.headers().contains_key("retry-after"), status == 507 || status == 503);
    }
    log.how.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        let posted = warp::test::request().method("POST").path(INTERACTIONS).header("content-type", JSON);
        let posted = posted.header("authorization", format!("Bearer {}", bench.publishable)).body(&record);
        assert_problem(&posted.reply(&bench.public).await, 507, "insufficient_storage", "counted for nothing");
    }
}
