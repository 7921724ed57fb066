//! `timing`: whether response times reveal that an account exists (ASVS V6.3.8): sign-in with a wrong password, password reset,
//! registration, each with known and unknown values.
//!
//! ```text
//! pairs, in random order ──▶ POST to `kindred serve`, timed by the client ──▶ two samples ──▶ rank tests, medians
//!          gateways for phones and mails beside it: codes to register with; side effects end before the next attempt
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use warp::Filter;

use crate::http::{Connection, post};
use crate::options::{Product, quick};
use crate::people::{self, PASSWORD, email, phone, username};
use crate::plot::Panel;
use crate::progress;
use crate::report::{Report, Target, curve, latencies, number, record};
use crate::server::Preloaded;
use crate::stats::{Comparison, compare};

/// False alarms of a test: one in a hundred.
const P_MIN: f64 = 0.01;
/// Attempts that do not count.
const WARM_UP: u32 = 20;
/// After an attempt, so that its side effects end before the next.
const PAUSE: Duration = Duration::from_millis(15);
/// Longest wait for a code or a mail.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lifts the limits that a thousand attempts from one address would meet; challenges are trivial.
const SETTINGS: [&str; 5] = [
    "members.limits.registrations_hour=1000000",
    "members.limits.challenges_hour=1000000",
    "members.limits.sign_in_failures_hour=1000000",
    "members.limits.phone_codes_address_hour=1000000",
    "members.registration.challenge_bits=1",
];

/// The options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Attempts with known and with unknown values, of each kind
    #[arg(long, default_value_t = 1_000)]
    pub tries: u32,
    /// The product.
    #[command(flatten)]
    pub product: Product,
}

quick!(|options| options.tries = 20);

/// The kind of attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    /// With a wrong password.
    SignIn,
    /// A new password for an e-mail.
    Reset,
    /// With an e-mail that exists or not.
    Registration,
}

impl Probe {
    const ALL: [Self; 3] = [Self::SignIn, Self::Reset, Self::Registration];

    const fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Reset => "password reset",
            Self::Registration => "registration",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Reset => "reset",
            Self::Registration => "registration",
        }
    }
}

/// Runs the measurement.
///
/// # Errors
/// When the server does not start, or status or length of an answer differ between known and unknown.
pub async fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("timing");
    report.parameter("tries_each", options.tries);
    report.parameter("settings", SETTINGS.as_slice());
    let binary = options.product.binary()?;
    let gateways = Gateways::start().await?;
    let mut settings: Vec<String> = SETTINGS.map(ToOwned::to_owned).to_vec();
    settings.push(format!("members.phone.url=http://{}/", gateways.phones));
    settings.push("members.mail.host=127.0.0.1".to_owned());
    settings.push(format!("members.mail.port={}", gateways.mails));
    settings.push("members.mail.security=none".to_owned());
    let preloaded = Preloaded::empty(settings, options.product.within.as_deref())?;
    // The server creates the directory.
    preloaded.serve(&binary).await?.kill()?;
    let known = options.tries + WARM_UP;
    people::fill(&preloaded.data(), known).await?;
    let server = preloaded.serve(&binary).await?;
    let mut prober = Prober {
        connection: Connection::open(server.endpoint.address).await.context("could not connect")?,
        address: server.endpoint.address,
        gateways,
        known,
        strangers: known,
    };
    let mut rows = Vec::new();
    let mut found = Vec::new();
    for probe in Probe::ALL {
        let samples = prober.pairs(probe, options.tries).await?;
        let compared = compare(&samples[0].ms, &samples[1].ms).context("there are no tries")?;
        tell(&mut report, probe, &samples, &compared);
        rows.push(row(probe, &samples, &compared));
        found.push(
            json!({ "probe": probe.name(), "compared": compared, "status": samples[0].answer.0, "bytes": samples[0].answer.1 }),
        );
    }
    let header = [
        "known against unknown",
        "tries",
        "known, p50 ms",
        "unknown, p50 ms",
        "difference, ms",
        "95 % interval, ms",
        "p (U)",
        "p (D)",
        "answer",
    ];
    let title = "in turn, the first of each pair drawn; U: Mann and Whitney, D: Kolmogorov and Smirnov";
    report.table(title, &header, rows);
    report.detail("comparisons", found)?;
    Ok(report)
}

fn tell(report: &mut Report, probe: Probe, samples: &[Sample; 2], compared: &Comparison) {
    let name = probe.name();
    let Comparison { difference, interval, mann_whitney_p, kolmogorov_smirnov_p, .. } = *compared;
    let of = format!("{name}, known against unknown");
    report.measure(format!("{of}: p, Mann-Whitney"), mann_whitney_p, "", Some(Target::AtLeast(P_MIN)));
    report.measure(format!("{of}: p, Kolmogorov-Smirnov"), kolmogorov_smirnov_p, "", Some(Target::AtLeast(P_MIN)));
    report.measure(format!("{of}: difference of medians"), difference, "ms", None);
    report.note(format!("95 % interval {:.3} to {:.3}", interval.0, interval.1));
    let mut panel = Panel::percentiles(of);
    for (sample, whose) in samples.iter().zip(["known", "unknown"]) {
        let mut histogram = latencies();
        for ms in &sample.ms {
            record(&mut histogram, Duration::from_secs_f64(ms / 1e3));
        }
        report.histogram(format!("{}-{whose}", probe.file()), &histogram);
        panel = panel.with_series(whose, curve(&histogram));
    }
    report.plot(panel);
}

fn row(probe: Probe, samples: &[Sample; 2], compared: &Comparison) -> Vec<String> {
    let (status, bytes) = samples[0].answer;
    let three = |value: f64| format!("{value:.3}");
    vec![
        probe.name().to_owned(),
        number(samples[0].ms.len() as f64),
        three(compared.medians.0),
        three(compared.medians.1),
        three(compared.difference),
        format!("{} to {}", three(compared.interval.0), three(compared.interval.1)),
        three(compared.mann_whitney_p),
        three(compared.kolmogorov_smirnov_p),
        format!("{status}, {bytes} bytes"),
    ]
}

/// Times of one kind of attempt, and the status and body size of all answers.
#[derive(Default)]
struct Sample {
    ms: Vec<f64>,
    answer: (u16, usize),
}

/// The client.
struct Prober {
    connection: Connection,
    address: SocketAddr,
    gateways: Gateways,
    /// Members with lower numbers exist.
    known: u32,
    /// The next unused number.
    strangers: u32,
}

impl Prober {
    /// Attempts in pairs of random order, so that drift affects both alike. (known, unknown)
    async fn pairs(&mut self, probe: Probe, tries: u32) -> Result<[Sample; 2]> {
        let bar = progress::bar(probe.name(), u64::from(tries + WARM_UP));
        bar.tick();
        let mut random = StdRng::seed_from_u64(11);
        let mut samples = [Sample::default(), Sample::default()];
        for number in 0..tries + WARM_UP {
            let first: bool = random.random();
            for is_known in [first, !first] {
                // Each account once: its own limits are not measured.
                let account = if is_known { number } else { self.stranger() };
                let (took, answer) = self.try_once(probe, account).await?;
                if number >= WARM_UP {
                    let sample = &mut samples[usize::from(!is_known)];
                    sample.ms.push(took.as_secs_f64() * 1e3);
                    ensure!(
                        sample.ms.len() == 1 || sample.answer == answer,
                        "{probe:?} answered {answer:?} after {:?}",
                        sample.answer
                    );
                    sample.answer = answer;
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let [known, unknown] = &samples;
        ensure!(
            known.answer == unknown.answer,
            "{probe:?} answers {:?} to who is known, else {:?}",
            known.answer,
            unknown.answer
        );
        Ok(samples)
    }

    fn stranger(&mut self) -> u32 {
        self.strangers += 1;
        self.strangers
    }

    async fn try_once(&mut self, probe: Probe, account: u32) -> Result<(Duration, (u16, usize))> {
        debug_assert!(account < self.known || account <= self.strangers);
        match probe {
            Probe::SignIn => {
                let form = json!({ "account": username(account), "password": "not umbra but 71" });
                let (took, status, body) = self.ask("/v1/sessions", &form).await?;
                ensure!(status == 401, "signing in with a wrong password was answered {status}");
                tokio::time::sleep(PAUSE).await;
                Ok((took, (status, body.len())))
            }
            Probe::Reset => {
                let form = json!({ "account": username(account), "challenge": self.challenge().await? });
                let (took, status, body) = self.ask("/v1/password-resets", &form).await?;
                ensure!(status == 202, "asking for a new password was answered {status}");
                tokio::time::sleep(PAUSE).await;
                Ok((took, (status, body.len())))
            }
            Probe::Registration => {
                // Only the e-mail may be known.
                let new = self.stranger();
                let form = json!({ "phone": phone(new), "challenge": self.challenge().await?, "language": "en" });
                let (_, status, body) = self.ask("/v1/phone-codes", &form).await?;
                ensure!(status == 202, "asking for a code was answered {status}: {}", String::from_utf8_lossy(&body));
                let code = self.gateways.code(&format!("+86{}", phone(new))).await?;
                let mails = self.gateways.mails_so_far();
                let form = json!({
                    "username": username(new),
                    "phone": phone(new),
                    "email": email(account),
                    "password": PASSWORD,
                    "challenge": self.challenge().await?,
                    "phone_code": code,
                    "agreement_version": "1",
                    "language": "en",
                });
                tokio::time::sleep(PAUSE).await;
                let (took, status, body) = self.ask("/v1/registrations", &form).await?;
                ensure!(status == 202, "registering was answered {status}: {}", String::from_utf8_lossy(&body));
                // Both cases send a mail.
                self.gateways.mail_after(mails).await?;
                tokio::time::sleep(PAUSE).await;
                Ok((took, (status, body.len())))
            }
        }
    }

    async fn challenge(&mut self) -> Result<Value> {
        let (_, status, body) = self.ask("/v1/captcha/challenges", &json!({})).await?;
        ensure!(status == 201, "asking for a challenge was answered {status}");
        let challenge: Value = serde_json::from_slice(&body).context("a challenge is no JSON")?;
        let token = challenge["token"].as_str().context("a challenge has a token")?;
        let solves = |nonce: &String| Sha256::digest(format!("{token}.{nonce}"))[0] < 128;
        let nonce = (0..).map(|number: u32| number.to_string()).find(solves).context("every other nonce solves it")?;
        Ok(json!({ "token": token, "nonce": nonce }))
    }

    /// An answer and its latency.
    async fn ask(&mut self, path: &str, form: &Value) -> Result<(Duration, u16, Vec<u8>)> {
        let request = post(path, self.address, None, "application/json", form.to_string().as_bytes());
        let began = Instant::now();
        let response = self.connection.exchange(&request).await.with_context(|| format!("POST {path}"))?;
        let took = began.elapsed();
        Ok((took, response.status, response.body.to_vec()))
    }
}

/// Local receivers of phone messages and mails.
struct Gateways {
    phones: SocketAddr,
    mails: u16,
    codes: mpsc::UnboundedReceiver<(String, String)>,
    /// Codes that arrived before they were awaited.
    waiting: HashMap<String, String>,
    taken: watch::Receiver<u64>,
}

impl Gateways {
    async fn start() -> Result<Self> {
        let (tell, codes) = mpsc::unbounded_channel();
        let route = warp::post().and(warp::body::json()).map(move |message: Value| {
            let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
            let code: String = text("text").chars().filter(char::is_ascii_digit).take(6).collect();
            // Nobody waits after the measurement.
            let _ = tell.send((text("to"), code));
            warp::reply()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.context("could not listen")?;
        let phones = listener.local_addr()?;
        tokio::spawn(warp::serve(route).incoming(listener).run());

        let listener = TcpListener::bind("127.0.0.1:0").await.context("could not listen")?;
        let mails = listener.local_addr()?.port();
        let (count, taken) = watch::channel(0);
        tokio::spawn(async move {
            let count = Arc::new(count);
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                // The sender reports a broken connection and retries.
                tokio::spawn(async move { take_mails(stream, &count).await.ok() });
            }
        });
        Ok(Self { phones, mails, codes, waiting: HashMap::new(), taken })
    }

    /// The code that was sent to a phone.
    async fn code(&mut self, phone: &str) -> Result<String> {
        loop {
            if let Some(code) = self.waiting.remove(phone) {
                return Ok(code);
            }
            let next = tokio::time::timeout(PATIENCE, self.codes.recv()).await;
            let (to, code) = next.with_context(|| format!("no code came to {phone}"))?.context("the gateway has ended")?;
            self.waiting.insert(to, code);
        }
    }

    fn mails_so_far(&self) -> u64 {
        *self.taken.borrow()
    }

    /// Waits for another mail.
    async fn mail_after(&mut self, before: u64) -> Result<()> {
        let more = tokio::time::timeout(PATIENCE, self.taken.wait_for(|count| *count > before)).await;
        more.context("no mail came")?.context("the gateway has ended")?;
        Ok(())
    }
}

/// A minimal SMTP server (RFC 5321) that discards mails.
async fn take_mails(stream: TcpStream, count: &watch::Sender<u64>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 bench\r\n").await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.split([' ', '\r', '\n']).next().unwrap_or_default().to_ascii_uppercase();
        match command.as_str() {
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                while line != ".\r\n" {
                    line.clear();
                    if stream.read_line(&mut line).await? == 0 {
                        bail!("a mail ended early");
                    }
                }
                stream.write_all(b"250 taken\r\n").await?;
                count.send_modify(|count| *count += 1);
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => stream.write_all(b"250 well\r\n").await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use kindred_config::members::{MailConfig, MailSecurity};
    use kindred_members::Language;
    use kindred_members::senders::{Channel, Message, Rendered, Sender, Smtp, Webhook};
    use kindred_model::units::EventTime;

    use super::*;

    /// The product's messages arrive: otherwise a measurement would wait forever.
    #[tokio::test]
    async fn the_gateways_take_what_the_product_sends() {
        let mut gateways = Gateways::start().await.unwrap();
        let message = |to: &str, channel: Channel| Message {
            id: "1".to_owned(),
            to: to.to_owned(),
            channel,
            language: Language::En,
            at: EventTime(0),
            rendered: Rendered { subject: "Code".to_owned(), body: "Your code: 123456, for 10 minutes\n".to_owned() },
        };
        let phones = Webhook::new(format!("http://{}/", gateways.phones), "secret".into());
        phones.send(message("+8613812345678", Channel::Phone)).await.unwrap();
        assert_eq!(gateways.code("+8613812345678").await.unwrap(), "123456");
        let (host, port) = ("127.0.0.1".to_owned(), gateways.mails);
        let mails = Smtp::new(&MailConfig { host, port, security: MailSecurity::None, ..MailConfig::default() }).unwrap();
        for _ in 0..2 {
            let before = gateways.mails_so_far();
            mails.send(message("mara@example.com", Channel::Mail)).await.unwrap();
            gateways.mail_after(before).await.unwrap();
        }
        assert_eq!(gateways.mails_so_far(), 2);
    }
}
