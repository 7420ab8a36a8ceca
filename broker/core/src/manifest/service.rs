//! Services as names for URLs.

use super::annotations::Annotations;
use super::document::{Map, Value};
use super::reader::{Path, Reader};
use super::{Mark, check_url};
use crate::codes;

/// The URL that a Service maps to: our annotation, then what the Service itself says (`ExternalName`, or the
/// address in the status of a Knative Service). None is no problem until something refers to it.
pub(super) fn url(
    reader: &mut Reader<'_>,
    root: &Map,
    spec: Option<&Map>,
    annotations: &Annotations<'_>,
) -> Option<String> {
    annotations.only(reader, &["url"], &[]);
    let annotated = annotations.own(reader, "url", |reader, url, mark, path| match check_url(url) {
        Ok(()) => Some(url.to_owned()),
        Err(invalid) => {
            let help = "write an absolute URL such as `http://localhost:8090/`";
            reader.error(codes::URL_INVALID, mark, path, invalid.to_string(), help);
            None
        }
    });
    annotated.or_else(|| spec.and_then(|spec| external_name(reader, spec))).or_else(|| address(root))
}

/// The most requests at one time that a Knative Service is made for: what each container takes, times the most containers that
/// there may be. None where one of both is without a limit, or left to the cluster.
pub(super) fn capacity(spec: Option<&Map>) -> Option<u32> {
    let template = inner(spec?, "template")?;
    let Value::Number(each) = &inner(template, "spec")?.get("containerConcurrency")?.value else {
        return None;
    };
    let annotations = inner(inner(template, "metadata")?, "annotations")?;
    let most = MAX_SCALE.iter().find_map(|name| annotations.get(name))?;
    let Value::String(most) = &most.value else { return None };
    let capacity = u32::try_from(each.as_u64()?).ok()?.checked_mul(most.parse().ok()?)?;
    (capacity > 0).then_some(capacity)
}

/// The most containers of a Knative Service, in both spellings.
const MAX_SCALE: [&str; 2] = ["autoscaling.knative.dev/max-scale", "autoscaling.knative.dev/maxScale"];

fn inner<'m>(map: &'m Map, name: &str) -> Option<&'m Map> {
    match &map.get(name)?.value {
        Value::Map(inner) => Some(inner),
        _ => None,
    }
}

fn external_name(reader: &mut Reader<'_>, spec: &Map) -> Option<String> {
    let root = Path::Root;
    let path = root.field("spec");
    if !spec.get("type").is_some_and(|node| node.value == Value::String("ExternalName".to_owned())) {
        return None;
    }
    let node = spec.get("externalName")?;
    let path = path.field("externalName");
    let host = reader.text(node, &path)?;
    let url = match port(spec) {
        Some((port, mark)) if !(1..=65_535).contains(&port) => {
            let path = Path::Root;
            let path = path.field("spec");
            let path = path.field("ports");
            let message = format!("`{port}` is no port");
            reader.error(codes::URL_INVALID, mark, &path, message, "write a number from 1 to 65535");
            return None;
        }
        Some((port, _)) if port != 80 => format!("http://{host}:{port}"),
        _ => format!("http://{host}"),
    };
    match check_url(&url) {
        Ok(()) => Some(url),
        Err(_) => {
            let message = format!("`{host}` is not the name of a host");
            reader.error(codes::URL_INVALID, node.mark, &path, message, "write a host name without a scheme");
            None
        }
    }
}

/// The first port of the Service.
fn port(spec: &Map) -> Option<(u64, Mark)> {
    let Value::List(ports) = &spec.get("ports")?.value else { return None };
    let Value::Map(port) = &ports.first()?.value else { return None };
    let node = port.get("port")?;
    let Value::Number(number) = &node.value else { return None };
    Some((number.as_u64()?, node.mark))
}

fn address(root: &Map) -> Option<String> {
    let mut map = root;
    for name in ["status", "address"] {
        let Value::Map(inner) = &map.get(name)?.value else { return None };
        map = inner;
    }
    let Value::String(url) = &map.get("url")?.value else { return None };
    check_url(url).ok().map(|()| url.clone())
}
