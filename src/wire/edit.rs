//! Changing a few members of an object and nothing else: the rest keeps its bytes and its order.

use super::value::{Json, Object, text as unescaped};

/// What happens to one member of an object.
#[derive(Debug, Clone)]
pub enum Edit<'a> {
    /// Its value becomes this; it is added at the end if it is not there.
    Set(&'a str, Json),
    /// It is added at the beginning if it is not there, and left alone if it is.
    Default(&'a str, Json),
    /// It is taken out.
    Remove(&'a str),
    /// Every member whose name begins with this is taken out.
    RemovePrefix(&'a str),
}

impl Object<'_> {
    /// This object with some members changed.
    #[must_use]
    pub fn edited(self, edits: &[Edit<'_>]) -> Json {
        let source = self.raw();
        let added: usize = edits.iter().map(Edit::length).sum();
        let mut text = String::with_capacity(source.len() + added);
        text.push('{');
        for edit in edits {
            if let Edit::Default(name, new) = edit
                && self.get(name).is_none()
            {
                append(&mut text, name, new);
            }
        }
        // Which of the edits found their member: requests have few, and none may cost an allocation.
        let mut found = 0_u64;
        for span in self.spans() {
            let key = unescaped(source.get(span.key_start + 1..span.key_end - 1).unwrap_or_default());
            let mut value = source.get(span.value_start..span.value_end);
            for (index, edit) in edits.iter().enumerate() {
                match edit {
                    Edit::Set(name, new) if *name == key => {
                        found |= bit(index);
                        value = Some(new.as_str());
                    }
                    Edit::Remove(name) if *name == key => value = None,
                    Edit::RemovePrefix(prefix) if key.starts_with(prefix) => value = None,
                    _ => {}
                }
            }
            if let Some(value) = value {
                separate(&mut text);
                text.push_str(source.get(span.key_start..span.key_end).unwrap_or_default());
                text.push(':');
                text.push_str(value);
            }
        }
        for (index, edit) in edits.iter().enumerate() {
            if let Edit::Set(name, new) = edit
                && found & bit(index) == 0
            {
                append(&mut text, name, new);
            }
        }
        text.push('}');
        Json::scanned(text.into())
    }
}

impl Edit<'_> {
    /// How many bytes it may add: both quotes, the colon and the comma, and a name that needs no escapes.
    fn length(&self) -> usize {
        match self {
            Self::Set(name, new) | Self::Default(name, new) => name.len() + new.as_str().len() + 4,
            Self::Remove(_) | Self::RemovePrefix(_) => 2,
        }
    }
}

/// The bit of an edit; the code never has so many that one is left without.
const fn bit(index: usize) -> u64 {
    debug_assert!(index < 64, "no object is edited in so many places at once");
    1 << (index % 64)
}

fn append(text: &mut String, name: &str, value: &Json) {
    separate(text);
    let plain = name.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && byte != b'"' && byte != b'\\');
    if plain {
        text.push('"');
        text.push_str(name);
        text.push('"');
    } else {
        text.push_str(Json::of(name).as_str());
    }
    text.push(':');
    text.push_str(value.as_str());
}

fn separate(text: &mut String) {
    if text.len() > 1 {
        text.push(',');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Source;

    fn edit(text: &str, edits: &[Edit<'_>]) -> String {
        let json = Json::parse(text, Source::Client).unwrap();
        json.value().as_object().unwrap().edited(edits).as_str().to_owned()
    }

    #[test]
    fn what_is_not_named_keeps_its_bytes_and_order() {
        let out = edit(
            r#"{"z":1.0,"name":"a__b","x/y":{ "k" : [ 1 ] },"_meta":{}}"#,
            &[Edit::Set("name", Json::of("b")), Edit::Remove("_meta"), Edit::Set("new", Json::of(&7))],
        );
        assert_eq!(out, r#"{"z":1.0,"name":"b","x/y":{ "k" : [ 1 ] },"new":7}"#);
    }

    #[test]
    fn a_default_stands_first_and_only_if_absent() {
        let kind = Json::of("complete");
        assert_eq!(
            edit(r#"{"a":1}"#, &[Edit::Default("resultType", kind.clone())]),
            r#"{"resultType":"complete","a":1}"#
        );
        assert_eq!(edit("{}", &[Edit::Default("resultType", kind.clone())]), r#"{"resultType":"complete"}"#);
        let other = r#"{"resultType":"task"}"#;
        assert_eq!(edit(other, &[Edit::Default("resultType", kind)]), other);
    }

    #[test]
    fn a_prefix_takes_out_all_of_its_members() {
        assert_eq!(edit(r#"{"x/a":1,"y":2,"x/b":3}"#, &[Edit::RemovePrefix("x/")]), r#"{"y":2}"#);
    }

    proptest! {
        #[test]
        fn an_edited_object_is_an_object_that_a_scan_accepts(
            keys in proptest::collection::btree_set("\\PC{0,6}", 0..6), name in "\\PC{0,6}", value in "\\PC{0,6}",
        ) {
            let members: Vec<_> = keys.iter().map(|key| format!("{}:[1, 2]", serde_json::to_string(key).unwrap())).collect();
            let text = format!("{{{}}}", members.join(", "));
            let out = edit(&text, &[Edit::Set(&name, Json::of(&value))]);
            let back = Json::parse(out.clone(), Source::Client).unwrap();
            prop_assert_eq!(back.value().as_object().unwrap().get(&name).unwrap().as_str().unwrap(), value);
            prop_assert_eq!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&out).unwrap().len(), keys.len() + usize::from(!keys.contains(&name)));
        }
    }
}
