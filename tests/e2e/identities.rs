//! Identities of other kinds: under a passphrase, of age, on a token, and the recovery recipient's.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harborseal_tests::harness::cli::{self, Outcome};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, harborseal, root};

/// age-encryption 0.3.1 (npm) made it, as the file says.
const AGE: &str = include_str!("fixtures/age-pq.identity");

fn record(lab: &Lab) {
    let engine = lab.start();
    Sender::from("127.0.0.1", lab.address()).send_all(&Stream::new(1).packets(200));
    lab.settle_and_stop(engine);
}

fn list(lab: &Lab, identity: &Path, more: &[&str]) -> Outcome {
    let data = lab.data();
    let arguments = ["list", "--json", "--identity", text(identity), text(&data)];
    harborseal(arguments.iter().chain(more))
}

#[track_caller]
fn sees_the_front_door(outcome: Outcome) {
    let listed = outcome.ok().json();
    assert_eq!(listed["cameras"][0]["id"], "front-door", "{listed}");
}

/// From here on Alice's footage is erasable: what is recorded now opens with a release, whatever keeps her key. `see` lists.
#[track_caller]
fn opens_what_is_released(lab: &mut Lab, see: impl Fn(&[&str]) -> Outcome) {
    lab.erasable("alice");
    record(lab);
    let not_released = |listed: Outcome| {
        let listed = listed.ok().json();
        listed["not_released"].as_array().map(Vec::len)
    };
    assert_eq!(not_released(see(&[])), Some(1));
    let (config, out) = (lab.config(), lab.path("alice.release"));
    let mut arguments = vec!["release", "--config", text(&config), "--customer", "alice"];
    arguments.extend(["--for", "Alice", "--purpose", "x", "-o", text(&out)]);
    harborseal(arguments).ok();
    assert_eq!(not_released(see(&["--release", text(&out)])), Some(0));
}

#[test]
fn a_passphrase_opens_the_identity_and_nothing_else_does() {
    let mut lab = Lab::new();
    let (right, wrong) = (lab.path("right"), lab.path("wrong"));
    std::fs::write(&right, "correct horse battery staple\n").expect("written");
    std::fs::write(&wrong, "correct horse battery stable\n").expect("written");
    let with = ["--passphrase-file", text(&right)];
    lab.customer_with("alice", &["--passphrase", "--passphrase-file", text(&right)]);
    lab.camera(Camera::new("front-door", "alice", 1));
    record(&lab);
    let alice = lab.identity("alice");
    let file = std::fs::read_to_string(&alice).expect("text");
    assert!(file.lines().any(|line| line.starts_with("hsx1")) && !file.contains("hss1"));

    sees_the_front_door(list(&lab, &alice, &with));
    let refused = list(&lab, &alice, &["--passphrase-file", text(&wrong)]).exits(2);
    let refused = refused
        .complains_about("wrong passphrase")
        .complains_about("alice.identity");
    assert!(!refused.stderr.contains("stable"), "it is not repeated");
    // Without a terminal and without a file there is nobody to ask.
    without_a_terminal(&alice, &lab.data())
        .exits(2)
        .complains_about("--passphrase-file");
    list(&lab, &alice, &["--passphrase-file", "no-such-file"])
        .exits(4)
        .complains_about("no-such-file");
    let garbled = lab.path("garbled.identity");
    std::fs::write(&garbled, file.replace("hsx1", "hsx1A")).expect("written");
    list(&lab, &garbled, &with).exits(2).complains_about("garbled");

    // A descriptor that the caller has opened, as a password manager's pipe.
    let command = "exec \"$1\" list --json --identity \"$2\" --passphrase-fd 7 \"$3\" 7<\"$4\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", command, "sh"]).arg(cli::binary());
    shell.arg(&alice).arg(lab.data()).arg(&right);
    sees_the_front_door(cli::run(shell, Duration::from_secs(60)));

    let (identity, data) = (lab.identity("alice"), lab.data());
    let list = ["list", "--json", "--identity", text(&identity), text(&data)];
    opens_what_is_released(&mut lab, |more| harborseal(list.iter().chain(&with).chain(more)));

    let empty = lab.path("empty");
    std::fs::write(&empty, "\n").expect("written");
    let new = lab.path("new.identity");
    let arguments = [
        "keygen",
        "-o",
        text(&new),
        "--passphrase",
        "--passphrase-file",
        text(&empty),
    ];
    harborseal(arguments).exits(2).complains_about("empty");
    assert!(!new.exists(), "nothing was made");
}

/// `setsid` leaves the terminal behind, if the tests have one.
fn without_a_terminal(identity: &Path, data: &Path) -> Outcome {
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(cli::binary());
    command.arg("list").arg("--identity").arg(identity).arg(data);
    cli::run(command, Duration::from_secs(60))
}

#[test]
fn the_terminal_is_asked_without_echo() {
    // Types the passphrase of `keygen` twice, and prints what the terminal showed.
    const TYPIST: &str = "
import os, pty, sys, time
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b''
asked = 0
while True:
    try:
        data = os.read(terminal, 1024)
    except OSError:
        break
    if not data:
        break
    shown += data
    if shown.count(b': ') > asked and shown.endswith(b': '):
        asked = shown.count(b': ')
        time.sleep(0.2)
        os.write(terminal, b'tell nobody\\n')
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.write(shown.decode())
sys.exit(status)
";
    let lab = Lab::new();
    let identity = lab.path("alice.identity");
    let mut typist = Command::new("python3");
    typist.args(["-c", TYPIST]).arg(cli::binary());
    typist.args(["keygen", "--p256", "--passphrase", "-o", text(&identity)]);
    let shown = cli::run(typist, Duration::from_secs(60)).ok().stdout;
    assert!(
        shown.contains("passphrase") && shown.contains("once more"),
        "{shown}"
    );
    assert!(!shown.contains("tell nobody"), "{shown}");
    let passphrase = lab.path("passphrase");
    std::fs::write(&passphrase, "tell nobody").expect("written");
    let public = [
        "keygen",
        "--public",
        text(&identity),
        "--passphrase-file",
        text(&passphrase),
    ];
    let public = harborseal(public).ok();
    assert!(shown.contains(public.stdout.trim()), "{shown}");
}

#[test]
fn a_key_of_age_is_sealed_to_and_opens() {
    let mut lab = Lab::new();
    let age = lab.path("age.identity");
    std::fs::write(&age, AGE).expect("written");
    let recipient = AGE
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .expect("age's");
    lab.identity_made("signing");
    let signing = lab.identity("signing");
    let enrolment = lab.path("alice.enrolment");
    let arguments = [
        "enrol",
        "--kem-key",
        recipient,
        "--signing-identity",
        text(&signing),
        "-o",
        text(&enrolment),
    ];
    harborseal(arguments).ok();
    let told = harborseal(["enrol", "--show", text(&enrolment), "--json"])
        .ok()
        .json();
    lab.customer_enrolled("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    record(&lab);
    sees_the_front_door(list(&lab, &age, &[]));
    list(&lab, &signing, &[]).exits(3);

    // It opens, and somebody else signs for it.
    let (data, grant) = (lab.data(), lab.path("x.grant"));
    let bob = lab.identity_made("bob");
    let mut arguments = vec![
        "grant",
        "--identity",
        text(&age),
        "--camera",
        "front-door",
        "--purpose",
        "x",
        "--to-key",
        &bob,
    ];
    arguments.extend([
        "--from",
        "2020-01-01T00:00:00Z",
        "--to",
        "2100-01-01T00:00:00Z",
        "-o",
        text(&grant),
        text(&data),
    ]);
    harborseal(&arguments)
        .exits(2)
        .complains_about("--signing-identity");
    arguments.extend(["--signing-identity", text(&signing)]);
    harborseal(&arguments).ok();
    let fingerprint = harborseal(["grant", "show", "--json", text(&grant)]).ok().json();
    assert_eq!(fingerprint["customer_fingerprint"], told["fingerprint"]);

    let list_json = ["list", "--json", "--identity", text(&age), text(&data)];
    opens_what_is_released(&mut lab, |more| harborseal(list_json.iter().chain(more)));

    let slip = recipient.replacen('q', "p", 3);
    let again = lab.path("again.enrolment");
    let arguments = [
        "enrol",
        "--kem-key",
        &slip,
        "--signing-identity",
        text(&signing),
        "-o",
        text(&again),
    ];
    harborseal(arguments).exits(2).complains_about("--kem-key");
    let classic = lab.path("classic.identity");
    std::fs::write(&classic, "AGE-SECRET-KEY-1QQQQ\n").expect("written");
    list(&lab, &classic, &[])
        .exits(2)
        .complains_about("AGE-SECRET-KEY-PQ-1");
}

/// A token of SoftHSM2's in the lab's folder, with a P-256 key "harborseal" made in it.
struct Token {
    config: PathBuf,
    pin: PathBuf,
    uri: String,
}

/// Where Debian puts it, on any machine.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

impl Token {
    fn or_skip(lab: &Lab, test: &str) -> Option<Token> {
        let missing = ["softhsm2-util", "pkcs11-tool"].into_iter().find(|tool| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {tool}")])
                .stdout(Stdio::null())
                .status();
            !found.is_ok_and(|status| status.success())
        });
        if let Some(tool) = missing {
            root::skip(test, &format!("{tool} is not installed"));
            return None;
        }
        let (config, pin, tokens) = (lab.path("softhsm2.conf"), lab.path("pin"), lab.path("tokens"));
        std::fs::create_dir(&tokens).expect("a folder");
        std::fs::write(&config, format!("directories.tokendir = {}\n", tokens.display())).expect("written");
        std::fs::write(&pin, "648219\n").expect("written");
        let token = Token {
            config,
            pin,
            uri: format!("pkcs11:token=alice;object=harborseal?module-path={SOFTHSM}"),
        };
        token.run(
            "softhsm2-util",
            &[
                "--init-token",
                "--free",
                "--label",
                "alice",
                "--so-pin",
                "1234",
                "--pin",
                "648219",
            ],
        );
        let mut key = vec![
            "--module",
            SOFTHSM,
            "--token-label",
            "alice",
            "--login",
            "--pin",
            "648219",
            "--keypairgen",
        ];
        key.extend([
            "--key-type",
            "EC:prime256v1",
            "--usage-derive",
            "--label",
            "harborseal",
            "--id",
            "01",
        ]);
        token.run("pkcs11-tool", &key);
        Some(token)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).env("SOFTHSM2_CONF", &self.config);
        cli::run(command, Duration::from_secs(60)).ok();
    }

    fn harborseal(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(cli::binary());
        command.args(arguments).env("SOFTHSM2_CONF", &self.config);
        cli::run(command, Duration::from_secs(60))
    }
}

#[test]
fn a_key_on_a_token_opens_and_never_leaves_it() {
    let mut lab = Lab::new();
    let Some(token) = Token::or_skip(&lab, "identities::a_key_on_a_token_opens_and_never_leaves_it") else {
        return;
    };
    let pin = ["--passphrase-file", text(&token.pin)];
    lab.identity_made("signing");
    let (signing, enrolment) = (lab.identity("signing"), lab.path("alice.enrolment"));
    let mut arguments = vec![
        "enrol",
        "--kem-key",
        &token.uri,
        "--signing-identity",
        text(&signing),
        "-o",
        text(&enrolment),
    ];
    arguments.extend(pin);
    token.harborseal(&arguments).ok();
    lab.customer_enrolled("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    record(&lab);

    let alice = lab.identity("alice");
    std::fs::write(&alice, format!("# Alice's card\n{}\n", token.uri)).expect("written");
    let data = lab.data();
    let list = ["list", "--json", "--identity", text(&alice), text(&data)];
    sees_the_front_door(token.harborseal(&[&list[..], &pin].concat()));
    let out = lab.path("out.rtpdump");
    let export = [
        "export",
        "--identity",
        text(&alice),
        "--camera",
        "front-door",
        "-o",
        text(&out),
        text(&data),
    ];
    let exported = token
        .harborseal(&[&export[..], &pin, &["--json"]].concat())
        .ok()
        .json();
    assert_eq!(exported["packets"], 200);
    let (bob, grant) = (lab.identity_made("bob"), lab.path("x.grant"));
    let mut granting = vec![
        "grant",
        "--identity",
        text(&alice),
        "--signing-identity",
        text(&signing),
        "--to-key",
        &bob,
    ];
    granting.extend([
        "--camera",
        "front-door",
        "--purpose",
        "x",
        "-o",
        text(&grant),
        text(&data),
    ]);
    granting.extend([
        "--from",
        "2020-01-01T00:00:00Z",
        "--to",
        "2100-01-01T00:00:00Z",
        pin[0],
        pin[1],
    ]);
    token.harborseal(&granting).ok();
    opens_what_is_released(&mut lab, |more| {
        token.harborseal(&[&list[..], &pin, more].concat())
    });

    // Each thing that can be wrong with a token is said, and is never "nothing here".
    let wrong = lab.path("wrong");
    std::fs::File::create(&wrong)
        .and_then(|mut file| file.write_all(b"111111"))
        .expect("written");
    let refused = token.harborseal(&[&list[..], &["--passphrase-file", text(&wrong)]].concat());
    refused.exits(2).complains_about("wrong PIN");
    for (from, to, status, about) in [
        ("token=alice", "token=bob", 4, "0 tokens"),
        ("object=harborseal", "object=other", 3, "no private EC key"),
        (SOFTHSM, "/no/such.so", 4, "/no/such.so"),
        ("?module-path", "?modul-path", 2, "modul-path"),
    ] {
        std::fs::write(&alice, token.uri.replace(from, to)).expect("written");
        token
            .harborseal(&[&list[..], &pin].concat())
            .exits(status)
            .complains_about(about);
    }
}
