use serde_json::json;

use crate::trial;

fn converted(xml: &str) -> Result<String, String> {
    let events = trial::events("xmlToJson", &json!({}), &trial::event_of("application/xml", xml))?;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].data_content_type(), Some("application/json"));
    assert_eq!(events[0].id(), "1");
    Ok(trial::text_of(&events[0]))
}

#[test]
fn maps_as_the_adapter_of_triggermesh() {
    for (xml, expected) in [
        ("<note><to>Tove</to></note>", r#"{"note":{"to":"Tove"}}"#),
        ("<a>x</a>", r#"{"a":"x"}"#),
        ("<a/>", r#"{"a":""}"#),
        ("<a></a>", r#"{"a":""}"#),
        ("<a>  </a>", r#"{"a":""}"#),
        ("<a>  x y  </a>", r#"{"a":"x y"}"#),
        ("<a>\n x \n</a>", r#"{"a":"x"}"#),
        ("<a><b>1</b></a>", r#"{"a":{"b":"1"}}"#),
        ("<a><b>1</b><b>2</b></a>", r#"{"a":{"b":["1","2"]}}"#),
        ("<a><b>1</b><c>x</c><b>2</b></a>", r#"{"a":{"b":["1","2"],"c":"x"}}"#),
        ("<a><b>true</b><c>1.50</c></a>", r#"{"a":{"b":"true","c":"1.50"}}"#),
        (r#"<a k="v"/>"#, r#"{"a":{"-k":"v"}}"#),
        (r#"<a k="v"></a>"#, r#"{"a":{"-k":"v"}}"#),
        (r#"<a k="v">x</a>"#, r##"{"a":{"#content":"x","-k":"v"}}"##),
        (r#"<a k='v' l="w"/>"#, r#"{"a":{"-k":"v","-l":"w"}}"#),
        (r#"<a k=" v "/>"#, r#"{"a":{"-k":" v "}}"#),
        (r#"<a k="1"><b>x</b></a>"#, r#"{"a":{"-k":"1","b":"x"}}"#),
        ("<a>x<b>y</b></a>", r##"{"a":{"#content":"x","b":"y"}}"##),
        ("<s:a xmlns:s=\"urn:x\"/>", r#"{"a":{"-s":"urn:x"}}"#),
        ("<a xmlns=\"urn:x\"/>", r#"{"a":{"-xmlns":"urn:x"}}"#),
        ("<s:a><s:b>x</s:b><t:b>y</t:b></s:a>", r#"{"a":{"b":["x","y"]}}"#),
        (r#"<a s:k="v"/>"#, r#"{"a":{"-k":"v"}}"#),
        ("<a><!-- no --><b>x</b></a>", r#"{"a":{"b":"x"}}"#),
        ("<?xml version=\"1.0\"?><a>x</a>", r#"{"a":"x"}"#),
        ("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>x</a>\n", r#"{"a":"x"}"#),
        ("<?go on?><a><?go on?>x</a>", r#"{"a":"x"}"#),
        ("\u{feff}<a>x</a>", r#"{"a":"x"}"#),
        ("<!DOCTYPE a><a>x</a>", r#"{"a":"x"}"#),
        ("<!DOCTYPE a SYSTEM \"a.dtd\"><a>x</a>", r#"{"a":"x"}"#),
        ("<a>1 &lt; 2 &amp;&#32;&#x33; &gt; 2</a>", r#"{"a":"1 < 2 & 3 > 2"}"#),
        (r#"<a k="&quot;&apos;&#65;"/>"#, r#"{"a":{"-k":"\"'A"}}"#),
        ("<a><![CDATA[<b> & c]]></a>", r#"{"a":"<b> & c"}"#),
        ("<a><b/><b/></a>", r#"{"a":{"b":["",""]}}"#),
        ("<a><b><c>1</c></b><b><c>2</c></b></a>", r#"{"a":{"b":[{"c":"1"},{"c":"2"}]}}"#),
        ("<ä>ö\u{1f600}</ä>", "{\"ä\":\"ö\u{1f600}\"}"),
        ("<a>say \"x\" \\ y</a>", r#"{"a":"say \"x\" \\ y"}"#),
        ("<a>x\r\ny</a>", r#"{"a":"x\ny"}"#),
        // Text in several pieces is kept; the adapter keeps the last piece alone.
        ("<a>x<b/>y</a>", r##"{"a":{"#content":"xy","b":""}}"##),
        ("<a>x<b/>\n</a>", r##"{"a":{"#content":"x","b":""}}"##),
        ("<a>x<![CDATA[y]]></a>", r#"{"a":"xy"}"#),
    ] {
        assert_eq!(converted(xml).as_deref(), Ok(expected), "{xml}");
    }
}

#[test]
fn takes_any_content_type() {
    for content_type in ["text/xml", "application/json", "text/plain; charset=utf-8", "application/soap+xml"]
    {
        let event = trial::event_of(content_type, "<a>x</a>");
        let events = trial::events("xmlToJson", &json!({}), &event).expect(content_type);
        assert_eq!(trial::text_of(&events[0]), r#"{"a":"x"}"#);
        assert_eq!(events[0].data_content_type(), Some("application/json"));
    }
}

#[test]
fn groups_many_different_members() {
    let children: String = (0..100).map(|n| format!("<m{}>{n}</m{}>", n % 50, n % 50)).collect();
    let json: serde_json::Value =
        serde_json::from_str(&converted(&format!("<a>{children}</a>")).expect("XML")).expect("JSON");
    let members = json["a"].as_object().expect("an object");
    assert_eq!(members.len(), 50);
    assert_eq!(members["m7"], json!(["7", "57"]));
    assert_eq!(members["m49"], json!(["49", "99"]));
}

#[test]
fn refuses_what_is_no_xml_with_its_place() {
    for (xml, reason) in [
        ("", "it has no element"),
        ("  ", "it has no element"),
        (r#""this is not xml""#, "text outside of the root element, at line 1, column 1"),
        ("<a>", "`a` is not closed, at line 1, column 4"),
        ("<a>\n<b></a>", "at line 2, column 4"),
        ("</a>", "the data is not XML"),
        ("<a/><b/>", "a second root element, at line 1, column 5"),
        ("<a/>x", "text outside of the root element, at line 1, column 5"),
        ("<a k=v/>", "the data is not XML"),
        (r#"<a k="1" k="2"/>"#, "the data is not XML"),
        ("<a>&none;</a>", "there is no entity `none`, at line 1, column 4"),
        ("<a>&#0;</a>", "the data is not XML"),
        ("<a>& b</a>", "the data is not XML"),
        ("<a", "the data is not XML"),
        ("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a/>", "convert it to UTF-8 before"),
    ] {
        let error = converted(xml).expect_err(xml);
        assert!(error.contains(reason), "{xml}: {error}");
    }
}

#[test]
fn refuses_entities_and_bombs() {
    let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]><l>&b;</l>";
    let outside = "<!DOCTYPE l [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><l>&x;</l>";
    let parameter = "<!DOCTYPE l [<!ENTITY % p SYSTEM \"http://host/x.dtd\"> %p;]><l/>";
    for xml in [laughs, outside, parameter] {
        let error = converted(xml).expect_err(xml);
        assert!(error.contains("the document type declares entities or markup, which is refused"), "{error}");
    }
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let error = converted(&deep).expect_err("deep");
    assert!(error.contains("nested deeper"), "{error}");
    let many = format!("<a>{}</a>", "<b/>".repeat(1_000_000));
    let error = converted(&many).expect_err("many");
    assert!(error.contains("bytes that one event may take"), "{error}");
}

#[test]
fn other_settings_are_refused() {
    assert!(trial::compile("xmlToJson", &json!({"other": 1})).is_err());
}
