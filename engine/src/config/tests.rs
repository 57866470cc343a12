//! Every rule of the configuration, by a file that breaks it, and the shipped files, which break none.

mod shipped;

use std::sync::LazyLock;

use harborseal_segment::identity::Identity;
use harborseal_segment::random::FixedBytes;

use super::*;
use crate::stream::registry::{MEDIA_UNKNOWN, Media};

/// The least that is valid, with room for more lines at the top of a section: line numbers count from here.
const TEMPLATE: &str = r#"data_dir = "data"
[listen]
rtp = "127.0.0.1:5004"
[shards]
cpus = [0]
[[customer]]
name = "alice"
public_key = "KEY"
[[camera]]
id = "front-door"
customer = "alice"
source = "127.0.0.1"
ssrc = 305419896
sdp = """v=0
m=video 5004 RTP/AVP 96
a=rtpmap:96 H264/90000
"""
"#;

/// A public key, as `keygen` prints it, made from fixed bytes.
fn key(of: u8) -> String {
    let bytes = [of; 64];
    Identity::generate(&mut FixedBytes(&bytes)).public().to_text()
}

static KEY: LazyLock<String> = LazyLock::new(|| key(1));
static MINIMAL: LazyLock<String> = LazyLock::new(|| TEMPLATE.replace("KEY", &KEY));

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_text(Path::new("conf/engine.toml"), text.to_owned(), &[0, 1])
}

fn refused(text: &str) -> (usize, String) {
    let error = parse(text).err().expect("refused");
    assert_eq!(error.file, Path::new("conf/engine.toml"));
    (error.line.expect("a line"), error.message)
}

/// Refused at `line` with a message that holds every one of `parts`.
fn refuses(text: &str, line: usize, parts: &[&str]) {
    let (at, message) = refused(text);
    assert_eq!(at, line, "{message}\n{text}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    assert!(!message.contains('\n'), "one line: {message:?}");
}

/// [`MINIMAL`] with `from` replaced by `to`.
fn with(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "{from:?}");
    MINIMAL.replacen(from, to, 1)
}

/// A second camera after the first; its header is line 18.
fn with_camera(lines: &str) -> String {
    format!("{}[[camera]]\n{lines}", *MINIMAL)
}

#[test]
fn the_minimal_configuration_of_the_readme_is_valid() {
    let config = parse(&MINIMAL).map_err(|e| e.to_string()).expect("valid");
    assert_eq!(
        config.data_dir,
        std::path::absolute("conf/data").expect("a working folder")
    );
    let listen = Listen {
        rtp: vec!["127.0.0.1:5004".parse().expect("address")],
        rtcp: Rtcp::Both,
    };
    assert_eq!(
        config.settings,
        Settings {
            listen,
            ..Settings::default()
        }
    );
    let camera = &config.registry.cameras[0];
    assert_eq!((&*camera.id, camera.customer), ("front-door", 0));
    assert_eq!(camera.streams[0].ssrc, 305_419_896);
    assert_eq!(
        camera.streams[0].media,
        Media {
            media_index: 0,
            clock_rate_hz: 90_000
        }
    );
    assert!(
        camera
            .sdp
            .as_deref()
            .is_some_and(|sdp| sdp.starts_with("v=0\nm=video"))
    );
}

#[test]
fn every_value_is_read_with_its_unit() {
    let config = parse(
        "data_dir = \"/var/lib/x\"
        listen = { rtp = [\"0.0.0.0:5004\", \"[::1]:5004\"], rtcp = \"same\" }
        shards.cpus = \"all\"
        memory = { limit = \"256MiB\", allow_unlocked = true }
        chunk.deadline = \"250ms\"
        commit.interval = \"5ms\"
        segment = { max_age = \"1h\", max_bytes = \"5000000B\" }
        retention = { max_age = \"7d\", max_bytes = \"1TiB\", min_free = \"10GiB\" }
        control.listen = \"[::1]:9100\"
        recovery.rate_limit = \"10MiB/s\"
        seal.backend = \"aes-gcm\"
        process.user = \"recorder\"
        process.require_sandbox = true
        process.read = [\"more\", \"/elsewhere\"]",
    );
    let config = config.map_err(|e| e.to_string()).expect("valid");
    assert_eq!(config.data_dir, Path::new("/var/lib/x"));
    let s = config.settings;
    assert_eq!((s.listen.rtp.len(), s.listen.rtcp), (2, Rtcp::Same));
    assert_eq!(s.shards.cpus, [0, 1]);
    assert_eq!(
        s.memory,
        Memory {
            limit_bytes: 256 << 20,
            allow_unlocked: true
        }
    );
    assert_eq!(
        (s.chunk.deadline, s.commit.interval),
        (Duration::from_millis(250), Duration::from_millis(5))
    );
    assert_eq!(
        s.segment,
        Segment {
            max_age: Duration::from_secs(3600),
            max_bytes: 1220 * 4096
        }
    );
    let retention = Retention {
        max_age: Some(Duration::from_secs(7 * 86_400)),
        max_bytes: Some(1 << 40),
        min_free_bytes: Some(10 << 30),
    };
    assert_eq!(s.retention, retention);
    assert_eq!(s.control.listen, Some("[::1]:9100".parse().expect("address")));
    assert_eq!(s.recovery.rate_limit_bytes_per_s, 10 << 20);
    assert_eq!(s.seal.backend, SealBackend::AesGcm);
    assert_eq!(
        s.process,
        Process {
            user: Some("recorder".to_owned()),
            require_sandbox: true,
            read: vec!["conf/more".into(), "/elsewhere".into()],
        }
    );
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    refuses(
        &with("cpus", "cpu"),
        5,
        &["unknown key \"cpu\" in [shards]", "\"cpus\""],
    );
    refuses(&with("data_dir", "datadir"), 1, &["\"datadir\"", "\"data_dir\""]);
    refuses(&with("[listen]", "[lisen]"), 2, &["\"lisen\"", "\"listen\""]);
    refuses(&with("source", "sourc"), 12, &["in [camera]", "\"source\""]);
    refuses(
        &with("[[customer]]", "deadline = 1\n[[customer]]"),
        6,
        &["in [shards]", "it belongs to [chunk]"],
    );
    refuses(
        &with("data_dir", "zzzzzzzzz = 1\ndata_dir"),
        1,
        &["\"zzzzzzzzz\"", "config/engine.toml"],
    );
}

#[test]
fn sections_of_the_wrong_kind_are_refused() {
    refuses(&with("[[camera]]", "[camera]"), 9, &["[[camera]]"]);
    refuses(&with("[listen]", "[[listen]]"), 2, &["[listen]"]);
    refuses("data_dir = \"x\"\nlisten = 5", 2, &["[listen]"]);
    refuses("camera = [5]", 1, &["[[camera]]"]);
}

#[test]
fn broken_toml_names_its_line() {
    refuses(&with("cpus = [0]", "cpus = [0"), 6, &[]);
    refuses(&with("[shards]", "[shards]\ncpus = [1]"), 6, &["duplicate"]);
}

#[test]
fn what_must_be_there_is_asked_for() {
    refuses(&with("data_dir = \"data\"", ""), 1, &["data_dir is missing"]);
    refuses(
        &with("rtp = \"127.0.0.1:5004\"", ""),
        2,
        &["listen.rtp is missing"],
    );
    refuses(&with("name = \"alice\"", ""), 6, &["customer.name is missing"]);
    refuses(
        &with(&format!("public_key = \"{}\"", *KEY), ""),
        6,
        &["customer.enrolment is missing"],
    );
    refuses(&with("id = \"front-door\"", ""), 9, &["camera.id is missing"]);
    refuses(
        &with("ssrc = 305419896", ""),
        9,
        &["camera.ssrc is missing", "source has a port"],
    );
    assert!(
        parse(&with("ssrc = 305419896", "").replace("source = \"127.0.0.1\"", "source = \"127.0.0.1:99\""))
            .is_ok()
    );
}

#[test]
fn values_of_the_wrong_kind_or_out_of_bounds_are_refused() {
    let top = |line: &str| format!("{line}\n{}", *MINIMAL);
    refuses(&top("chunk.deadline = 500"), 1, &["chunk.deadline", "quotes"]);
    refuses(&top("chunk.deadline = \"1ms\""), 1, &["20ms to 10s"]);
    refuses(&top("commit.interval = \"2s\""), 1, &["1ms to 1s"]);
    refuses(&top("commit.interval = \"600ms\""), 1, &["chunk.deadline, 500ms"]);
    refuses(&top("segment.max_age = \"10ms\""), 1, &["1s to 1d"]);
    refuses(&top("segment.max_bytes = \"64KiB\""), 1, &["at least 2MiB"]);
    refuses(&top("retention.max_age = \"forever\""), 1, &["as in"]);
    refuses(&top("recovery.rate_limit = \"1KiB/s\""), 1, &["1MiB/s"]);
    refuses(
        &top("seal.backend = \"rot13\""),
        1,
        &["\"auto\", \"aws-lc\", \"ring\" or \"aes-gcm\""],
    );
    refuses(&top("memory.allow_unlocked = \"yes\""), 1, &["true or false"]);
    refuses(&top("memory.limit = \"64\""), 1, &["as in \"64KiB\""]);
    refuses(&with("data\"", "\""), 1, &["must name a folder"]);
}

#[test]
fn too_little_memory_is_refused_with_the_sum() {
    let two = with("cpus = [0]", "cpus = [0, 1]");
    refuses(
        &two.replace("[shards]", "[memory]\nlimit = \"95MiB\"\n[shards]"),
        5,
        &["32MiB + 2 shards × 32MiB = 96MiB"],
    );
    assert!(parse(&two.replace("[shards]", "[memory]\nlimit = \"96MiB\"\n[shards]")).is_ok());
}

#[test]
fn a_segment_must_hold_more_than_its_keys() {
    let mut text = with("[shards]", "[segment]\nmax_bytes = \"2MiB\"\n[shards]");
    for ssrc in 1..=300 {
        text += &format!(
            "[[camera]]\nid = \"{ssrc}\"\ncustomer = \"alice\"\nsource = \"10.0.0.1\"\nssrc = {ssrc}\n"
        );
    }
    refuses(&text, 5, &["301 cameras of 1 customers need at least 3MiB"]);
}

#[test]
fn cpus_must_exist_and_differ() {
    refuses(&with("[0]", "[0, 7]"), 5, &["CPU 7", "[0, 1]"]);
    refuses(&with("[0]", "[1, 1]"), 5, &["CPU 1 is listed twice"]);
    refuses(&with("[0]", "[]"), 5, &["at least one"]);
    refuses(&with("[0]", "\"some\""), 5, &["\"all\""]);
    refuses(&with("[0]", "[-1]"), 5, &["whole number"]);
}

#[test]
fn listen_addresses_must_not_collide() {
    let rtp = |list: &str| with("\"127.0.0.1:5004\"", list);
    refuses(&rtp("[\"127.0.0.1:5004\",\n\"127.0.0.1:5004\"]"), 4, &["line 3"]);
    refuses(
        &rtp("[\"127.0.0.1:5004\",\n\"127.0.0.1:5005\"]"),
        4,
        &["line 3", "RTCP"],
    );
    refuses(&rtp("\"127.0.0.1:65535\""), 3, &["65535"]);
    refuses(&rtp("\"127.0.0.1:0\""), 3, &["port 0"]);
    refuses(&rtp("\"localhost:5004\""), 3, &["address:port"]);
    refuses(&rtp("[]"), 3, &["at least one"]);
    let same = rtp("[\"127.0.0.1:5004\", \"127.0.0.1:5005\"]\nrtcp = \"same\"");
    assert!(parse(&same).is_ok());
    refuses(&rtp("\"127.0.0.1:5004\"\nrtcp = \"mux\""), 4, &["\"same\""]);
}

#[test]
fn names_and_ids_must_differ_and_be_printable_and_are_never_quoted() {
    let twice = with(
        "[[camera]]",
        &format!(
            "[[customer]]\nname = \"alice\"\npublic_key = \"{}\"\n[[camera]]",
            *KEY
        ),
    );
    refuses(&twice, 10, &["line 7"]);
    let front = "id = \"front-door\"\ncustomer = \"alice\"\nsource = \"127.0.0.1\"\nssrc = 2\n";
    refuses(&with_camera(front), 19, &["line 10"]);
    let stranger = with("customer = \"alice\"", "customer = \"bob\"");
    refuses(&stranger, 11, &["no [[customer]]"]);
    refuses(&with("\"front-door\"", "\"\""), 10, &["1 to 255 bytes"]);
    refuses(&with("\"front-door\"", "\"a\\nb\""), 10, &["control characters"]);
    for text in [twice, with_camera(front), stranger] {
        let (_, message) = refused(&text);
        for name in ["alice", "bob", "front-door"] {
            assert!(!message.contains(name), "{message:?} names {name}");
        }
    }
}

#[test]
fn public_keys_are_checked_and_never_quoted() {
    let wrong = |text: &str, part: &str| refuses(&with(&KEY, text), 8, &["customer.public_key", part]);
    wrong("alice", "hsp1");
    wrong(&KEY[..1000], "cut");
    wrong(&KEY.replace("hsp1", "hsp1A"), "cut or has extra");
    let garbled = KEY.replacen(char::from(KEY.as_bytes()[900]), "_", 1);
    wrong(&garbled, "garbled");
    let secret = Identity::generate(&mut FixedBytes(&[1; 64])).to_file_text();
    let secret = secret.lines().last().expect("the secret line").to_owned();
    wrong(&secret, "secret");
    let (_, message) = refused(&with(&KEY, &secret));
    assert!(
        !message.contains(&secret[4..20]),
        "a secret in the wrong place is not printed"
    );
}

#[test]
fn equal_ids_and_ssrcs_are_allowed_where_they_can_be_told_apart() {
    let text = with(
        "[[camera]]",
        &format!(
            "[[customer]]\nname = \"bob\"\npublic_key = \"{}\"\n[[camera]]",
            *KEY
        ),
    );
    let other =
        "[[camera]]\nid = \"front-door\"\ncustomer = \"bob\"\nsource = \"127.0.0.2\"\nssrc = 305419896\n";
    assert!(parse(&(text + other)).is_ok());
}

#[test]
fn overlapping_sources_with_one_ssrc_are_refused_naming_both_lines() {
    let other = "id = \"b\"\ncustomer = \"alice\"\nsource = \"127.0.0.0/8\"\nssrc = [1,\n 0x12345678]\n";
    refuses(&with_camera(other), 23, &["305419896", "line 13", "12 and 21"]);
    let open = |port: u16| {
        format!("[[camera]]\nid = \"c{port}\"\ncustomer = \"alice\"\nsource = \"10.0.0.1:{port}\"\n")
    };
    refuses(
        &format!("{}{}{}", *MINIMAL, open(5000), open(5001)),
        25,
        &["line 21", "RTCP"],
    );
    assert!(parse(&format!("{}{}{}", *MINIMAL, open(5000), open(5002))).is_ok());
}

#[test]
fn ssrcs_must_be_32_bit_numbers_and_differ() {
    refuses(&with("305419896", "4294967296"), 13, &["0 to 4294967295"]);
    refuses(&with("305419896", "-1"), 13, &["0 to 4294967295"]);
    refuses(&with("305419896", "\"7\""), 13, &["whole number"]);
    refuses(&with("305419896", "[7, 7]"), 13, &["listed twice"]);
    refuses(&with("305419896", "[]"), 13, &["at least one"]);
    refuses(
        &with("305419896", &format!("{:?}", (0..17).collect::<Vec<_>>())),
        13,
        &["at most 16"],
    );
    refuses(&with("305419896", "[1, 2]"), 13, &["2 SSRCs", "1 m= lines"]);
}

#[test]
fn sources_are_addresses() {
    refuses(
        &with("source = \"127.0.0.1\"", "source = \"camera.local\""),
        12,
        &["address/prefix"],
    );
    refuses(
        &with("source = \"127.0.0.1\"", "source = \"10.0.0.0/40\""),
        12,
        &["0 to 32"],
    );
    refuses(&with("source = \"127.0.0.1\"", "source = 5"), 12, &["string"]);
}

#[test]
fn session_descriptions_come_from_files_beside_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("engine.toml");
    let camera = |id: &str, ssrc: u32, sdp: &str| {
        format!(
            "[[camera]]\nid = \"{id}\"\ncustomer = \"alice\"\nsource = \"::1\"\nssrc = {ssrc}\nsdp = \"{sdp}\"\n"
        )
    };
    std::fs::write(folder.path().join("a.sdp"), "v=0\r\nm=audio 1 RTP/AVP 0\r\n").expect("written");
    std::fs::write(folder.path().join("bad.sdp"), "hello\n").expect("written");
    let load = |cameras: &str| {
        std::fs::write(&path, format!("{}{cameras}", *MINIMAL)).expect("written");
        Config::load(&path)
    };
    let loaded = load(&(camera("a", 1, "a.sdp") + &camera("b", 2, "a.sdp")))
        .map_err(|e| e.to_string())
        .expect("valid");
    assert_eq!(
        loaded.registry.cameras[1].streams[0].media,
        Media {
            media_index: 0,
            clock_rate_hz: 8000
        }
    );
    let sdps: Vec<_> = loaded.registry.cameras[1..]
        .iter()
        .flat_map(|c| c.sdp.as_ref())
        .collect();
    assert!(Arc::ptr_eq(sdps[0], sdps[1]), "read once");

    for (sdp, parts) in [
        ("none.sdp", ["none.sdp", "no such file"]),
        ("bad.sdp", ["bad.sdp", "no session description"]),
    ] {
        let error = load(&camera("a", 1, sdp)).err().expect("refused");
        assert_eq!(error.line, Some(23));
        assert!(parts.iter().all(|part| error.message.contains(part)), "{error}");
    }
    let error = load(&camera("a", 1, ".")).err().expect("refused");
    assert!(error.message.contains("not a file"), "{error}");
}

#[test]
fn a_camera_may_do_without_a_description() {
    let text = with_camera("id = \"b\"\ncustomer = \"alice\"\nsource = \"10.0.0.1\"\nssrc = [1, 2]\n");
    let config = parse(&text).map_err(|e| e.to_string()).expect("valid");
    assert_eq!(
        config.registry.cameras[1].streams[1].media.media_index,
        MEDIA_UNKNOWN
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = Config::load(&folder.path().join("none.toml"))
        .err()
        .expect("refused");
    assert_eq!(missing.line, None);
    assert!(
        missing
            .to_string()
            .ends_with("none.toml: no such file or directory"),
        "{missing}"
    );
    let directory = Config::load(folder.path()).err().expect("refused");
    assert!(directory.to_string().ends_with("is a directory"), "{directory}");
    let path = folder.path().join("latin1.toml");
    std::fs::write(&path, b"data_dir = \"x\"\n# caf\xe9\n").expect("written");
    assert_eq!(Config::load(&path).err().expect("refused").line, Some(2));
}

#[test]
fn changed_sections_that_need_a_restart_are_named() {
    let running = parse(&MINIMAL).map_err(|e| e.to_string()).expect("valid");
    let text = with("5004", "5006").replacen("data\"", "elsewhere\"", 1) + "[retention]\nmax_age = \"1d\"\n";
    let new = parse(&text).map_err(|e| e.to_string()).expect("valid");
    assert_eq!(new.sections_needing_restart(&running), ["data_dir", "[listen]"]);
}

#[test]
fn ten_thousand_cameras_of_a_thousand_customers_load_quickly() {
    let keys: Vec<String> = (0..=255).map(key).collect();
    let mut text = with("[[customer]]", "[memory]\nlimit = \"1GiB\"\n[[customer]]");
    for n in 0..1000 {
        text += &format!(
            "[[customer]]\nname = \"c{n}\"\npublic_key = \"{}\"\n",
            keys[n % keys.len()]
        );
    }
    for n in 0..10_000 {
        let (a, b, c) = (n / 10_000 + 1, n / 100 % 100, n % 100);
        text += &format!(
            "[[camera]]\nid = \"k{n}\"\ncustomer = \"c{}\"\nsource = \"10.{a}.{b}.{c}\"\nssrc = [{n}, {}]\nsdp = \"\"\"v=0\nm=video {n} RTP/AVP 96\na=rtpmap:96 H264/90000\nm=audio 1 RTP/AVP 0\n\"\"\"\n",
            n % 1000,
            n + 20_000,
        );
    }
    let began = std::time::Instant::now();
    let config = parse(&text).map_err(|e| e.to_string()).expect("valid");
    let took = began.elapsed();
    assert_eq!(config.registry.cameras.len(), 10_001);
    // Under a second in a release build is promised; this one is slower, and the machine may be busy.
    assert!(took < Duration::from_secs(10), "{took:?}");
    eprintln!("10,000 cameras of 1,000 customers: {took:?}");
}
