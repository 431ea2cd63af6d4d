use proptest::prelude::*;

use super::*;

const QUEUE: &str = "mcp-courier:notifications:some-session";
const ID: &str = "0191d4c0-a1b2-7c3d-8e4f-5061728394a5";

fn key(first: u8) -> SealingKey {
    let bytes: Vec<u8> = (first..).take(SealingKey::LENGTH).collect();
    SealingKey::from_bytes(&bytes).unwrap()
}

fn keys() -> SealingKeys {
    SealingKeys::sealing("2026-11", key(0)).unwrap()
}

fn binding<'a>(purpose: Purpose, owner: &'a str, id: &'a str) -> Binding<'a> {
    Binding { purpose, owner, id }
}

fn open(keys: &SealingKeys, sealed: &str, binding: &Binding<'_>) -> Result<String, Unopened> {
    Sealed::of(sealed).unwrap().and_then(|sealed| sealed.open(Some(keys), binding))
}

/// Another program, in another language, computed the texts from the description in `docs/sealing.md`. Where this test fails, the form has changed: raise `VERSION` of `form.rs`, and keep a reader of this one.
#[test]
fn the_form_is_that_of_version_1() {
    let of_request = "mcp-courier:task:anon:t:elicit:request";
    let known = [
        (
            binding(Purpose::Notification, QUEUE, ID),
            r#"{"method":"notifications/x","params":{"n":1}}"#,
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX5eBiGuS64soRfgSgpCbBjiIkSdGUuXOYUGIdmh/dlCs/a8XGexwrCvevnySyLl2tFjq8pQXfPYWqtERQpw==",
        ),
        (
            binding(Purpose::Answer, of_request, "r"),
            r#"{"action":"decline","content":null,"request_id":"r"}"#,
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX5eBuHOS74sARfgSqrjHEgSUiConftXKFC39Rwh+XmywyaprGMwJ4EbDm2gamRXFYU8jAJGONguw+H83lcp8+42mfBO0=",
        ),
        (
            binding(Purpose::Session, QUEUE, ""),
            r#"{"initialize_params":{}}"#,
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX5eBmEfmm5M9fLVyrlCLJmioqW4fHrWCWPuNq7TamPprWIzDBBOrrvw==",
        ),
    ];
    for (binding, text, data) in known {
        let nonce = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let sealed = keys().seal_with(nonce, "2026-11", &binding, text).unwrap();
        assert_eq!(sealed, format!("{{\"v\":1,\"k\":\"2026-11\",\"n\":\"{data}\"}}"), "{binding:?}");
        assert_eq!(open(&keys(), &sealed, &binding), Ok(text.to_owned()));
    }
}

#[test]
fn no_purpose_has_the_name_of_another() {
    let all = [Purpose::Notification, Purpose::Request, Purpose::Answer, Purpose::OpenQuestion, Purpose::Session];
    let names: std::collections::HashSet<_> = all.iter().map(|purpose| purpose.name()).collect();
    assert_eq!(names.len(), all.len());
}

#[test]
fn a_text_opens_nowhere_but_at_its_place() {
    let here = binding(Purpose::Notification, QUEUE, ID);
    let sealed = keys().seal("2026-11", &here, "text").unwrap();
    assert_eq!(open(&keys(), &sealed, &here).as_deref(), Ok("text"));
    let moved = format!("n{ID}");
    let elsewhere = [
        binding(Purpose::Notification, "mcp-courier:notifications:other-session", ID),
        binding(Purpose::Notification, "other-prefix:notifications:some-session", ID),
        binding(Purpose::Notification, QUEUE, "0191d4c0-a1b2-7c3d-8e4f-5061728394a6"),
        binding(Purpose::Answer, QUEUE, ID),
        binding(Purpose::OpenQuestion, QUEUE, ID),
        binding(Purpose::Session, QUEUE, ID),
        // The same letters, divided otherwise.
        binding(Purpose::Notification, &QUEUE[..QUEUE.len() - 1], &moved),
    ];
    for binding in elsewhere {
        assert_eq!(open(&keys(), &sealed, &binding).unwrap_err().why, Why::Changed, "{binding:?}");
    }
}

#[test]
fn each_reason_is_named_with_the_key() {
    let here = binding(Purpose::Notification, QUEUE, ID);
    let sealed = keys().seal("2026-11", &here, "text").unwrap();
    let why = |keys: Option<&SealingKeys>, sealed: &str| {
        Sealed::of(sealed).unwrap().and_then(|sealed| sealed.open(keys, &here)).unwrap_err().to_string()
    };
    let begins = r#"it is sealed with key "2026-11" and cannot be opened: "#;
    assert_eq!(why(None, &sealed), format!("{begins}this process has no sealing keys"));
    let others = SealingKeys::sealing("2026-05", key(1)).unwrap();
    assert_eq!(why(Some(&others), &sealed), format!("{begins}this process has no key of this id"));
    let same_id = SealingKeys::sealing("2026-11", key(1)).unwrap();
    let changed = "it was changed, or sealed for another place, or with another key of the same id";
    assert_eq!(why(Some(&same_id), &sealed), format!("{begins}{changed}"));
    let newer = sealed.replace("\"v\":1", "\"v\":2");
    assert_eq!(
        why(Some(&keys()), &newer),
        format!("{begins}its form has version 2, and this process knows version 1 only")
    );
    for (sealed, form) in [
        (r#"{"v":1,"k":"2026-11","n":"AAAA"}"#, "n is too short"),
        (r#"{"v":1,"k":"2026-11","n":"*"}"#, "n is no base64"),
        (r#"{"v":1,"k":"2026-11","n":7}"#, "n is no base64"),
        (r#"{"v":"1","k":"2026-11","n":"AAAA"}"#, "v is no whole number"),
    ] {
        assert_eq!(why(Some(&keys()), sealed), format!("{begins}it has not the form of a sealed text: {form}"));
    }
    let no_key =
        r#"it is sealed with key "" and cannot be opened: it has not the form of a sealed text: k is no id of a key"#;
    for key in [r#""a b""#, r#""""#, r#""\u0061""#, "1", &format!("{:?}", "x".repeat(65))] {
        assert_eq!(why(Some(&keys()), &format!(r#"{{"v":1,"k":{key},"n":""}}"#)), no_key);
    }
    assert!(Sealed::of("true").is_none() && Sealed::of("\"x\"").is_none(), "the field of another program");
}

#[test]
fn any_key_opens_and_the_primary_one_seals() {
    let here = binding(Purpose::Notification, QUEUE, ID);
    let old = SealingKeys::sealing("old", key(1)).unwrap();
    let both = SealingKeys::sealing("new", key(2)).unwrap().may_open("old", key(1)).unwrap();
    let sealed = old.seal("old", &here, "text").unwrap();
    assert_eq!(open(&both, &sealed, &here).as_deref(), Ok("text"));
    assert_eq!((both.primary(), both.ids().collect::<Vec<_>>()), (Some("new"), vec!["new", "old"]));
    let opening = SealingKeys::opening("old", key(1)).unwrap();
    assert_eq!((opening.primary(), open(&opening, &sealed, &here).as_deref()), (None, Ok("text")));
    assert_eq!(opening.seal("new", &here, "text"), Err(SealError::UnknownKey("new".to_owned())));
}

#[test]
fn the_same_text_is_sealed_differently_each_time() {
    let here = binding(Purpose::Session, QUEUE, "");
    let [first, second] = [(); 2].map(|()| keys().seal("2026-11", &here, "text").unwrap());
    assert_ne!(first, second);
}

#[test]
fn keys_are_read_from_each_text_and_shown_in_none() {
    let [base64, hex] = [
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "000102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ];
    for read in [
        SealingKey::from_base64(base64),
        SealingKey::from_base64(base64.trim_end_matches('=')),
        SealingKey::from_base64(&format!(" {base64}\n")),
        SealingKey::from_hex(hex),
        SealingKey::from_hex(&format!("{hex}\n")),
    ] {
        assert_eq!(read, Ok(key(0)));
    }
    assert_ne!(key(0), key(1));
    assert_ne!(SealingKey::generate(), SealingKey::generate());
    let shown = format!("{:?} {:?} {:?}", key(65), SealingKeys::sealing("a", key(65)), keys());
    for secret in ["ABCD", "65, 66", "QUJD", "41424344"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let wrong = |read: Result<SealingKey, InvalidSealingKey>| read.unwrap_err().to_string();
    assert_eq!(wrong(SealingKey::from_bytes(&[0; 31])), "a sealing key must have 32 bytes, and this one has 31");
    assert_eq!(wrong(SealingKey::from_base64("AAEC")), "a sealing key must have 32 bytes, and this one has 3");
    assert_eq!(wrong(SealingKey::from_hex(&hex[2..])), "a sealing key must have 32 bytes, and this one has 31");
    assert_eq!(
        wrong(SealingKey::from_base64("a secret!")),
        "the text of a sealing key must be base64, and this one is not"
    );
    for text in ["a secret!", &hex[1..], &hex.replace('1', "+")] {
        assert_eq!(
            wrong(SealingKey::from_hex(text)),
            "the text of a sealing key must be hexadecimal, and this one is not"
        );
    }
}

#[test]
fn ids_that_cannot_be_used_are_refused() {
    for id in ["", "a b", "a\"b", "ä", &"x".repeat(65)] {
        let refused = SealingKeys::sealing(id, key(0)).unwrap_err();
        assert_eq!(refused, InvalidSealingKey::Id { id: id.to_owned() });
    }
    assert!(SealingKeys::sealing("x".repeat(64), key(0)).is_ok());
    let twice = keys().may_open("2026-11", key(1)).unwrap_err();
    assert_eq!(twice.to_string(), "two sealing keys have the id \"2026-11\"");
}

#[test]
fn keys_are_equal_where_all_of_them_are() {
    assert_eq!(keys(), keys().clone());
    let others = [
        SealingKeys::sealing("2026-11", key(1)).unwrap(),
        SealingKeys::sealing("2026-12", key(0)).unwrap(),
        SealingKeys::opening("2026-11", key(0)).unwrap(),
        keys().required(),
        keys().may_open("x", key(1)).unwrap(),
    ];
    for other in others {
        assert_ne!(keys(), other);
    }
}

proptest! {
    #[test]
    fn whatever_is_sealed_is_opened_and_no_changed_byte_passes(
        text in any::<String>(), owner in ".{0,30}", id in ".{0,30}", at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let here = binding(Purpose::Answer, &owner, &id);
        let sealed = keys().seal("2026-11", &here, &text).unwrap();
        prop_assert_eq!(open(&keys(), &sealed, &here), Ok(text));
        // Any flipped bit of nonce, ciphertext or tag.
        let data = Sealed::of(&sealed).unwrap().unwrap().data.to_owned();
        let mut bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &data).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = sealed.replace(&data, &base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes));
        prop_assert_eq!(open(&keys(), &changed, &here).unwrap_err().why, Why::Changed);
        // A shorter text.
        bytes.truncate(at);
        let cut = sealed.replace(&data, &base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes));
        prop_assert!(open(&keys(), &cut, &here).is_err());
    }

    #[test]
    fn two_places_are_never_bound_alike(a in ".{0,4}", b in ".{0,4}", c in ".{0,4}", d in ".{0,4}") {
        let [one, other] = [(&a, &b), (&c, &d)].map(|(owner, id)| {
            cipher::associated_data("k", &binding(Purpose::Answer, owner, id))
        });
        prop_assert_eq!(one == other, a == c && b == d);
    }

    #[test]
    fn no_value_makes_the_reader_panic(value in r#"(\{("[vkn]":("[a-zA-Z0-9+/=]{0,80}"|[0-9]{1,25}|null),?){0,4}\}|.{0,40})"#) {
        if let Some(Ok(sealed)) = Sealed::of(&value) {
            prop_assert!(sealed.open(Some(&keys()), &binding(Purpose::Session, "o", "")).is_err());
        }
    }
}
