//! The triggers and events of the matcher's measurement.
//!
//! Of 100 triggers 60 ask for a type, 10 for a type and an extension, 10 for the prefix of a type and a tier, 10 for the
//! suffix of a source, 5 for a type and an amount, 5 for a type and not for the prefix of a source. Tier and amount are
//! in the data, or in the attributes alone are a further extension. There are as many types, groups of types and
//! shops as make an event match four or five triggers.

use waypost_core::Event;
use waypost_core::filter::jsonpath::Query;
use waypost_core::filter::like::Pattern;
use waypost_core::filter::{Clause, Clauses, Filter, InvalidFilter};

/// How many events there are. Together they are larger than the caches near a core.
const EVENTS: usize = 8_192;

const TIERS: [&str; 4] = ["gold", "silver", "bronze", "none"];
const REGIONS: [&str; 2] = ["eu-central-1", "us-east-2"];

/// What triggers ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mix {
    Attributes,
    Data,
    /// Patterns `tenants/%/orders/%NNN%` on one attribute, each of which fits some of the same texts.
    Wildcards,
}

impl Mix {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Attributes => "attributes",
            Self::Data => "attributes and data",
            Self::Wildcards => "overlapping wildcards",
        }
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// How many types, groups of them, and shops there are for so many triggers.
struct Sizes {
    types: usize,
    groups: usize,
    shops: usize,
}

impl Sizes {
    fn of(triggers: usize) -> Self {
        let share = |percent: usize, each: usize| (triggers * percent).div_ceil(100 * each).max(1);
        Self { types: share(60, 3), groups: share(10, 2), shops: share(10, 1) }
    }

    fn type_name(&self, number: usize) -> String {
        format!("{}order-{number}.created.v1", self.group(number))
    }

    fn group(&self, number: usize) -> String {
        format!("com.example.domain-{}.", number % self.groups)
    }
}

/// The filters of so many triggers.
pub(crate) fn filters(triggers: usize, mix: Mix) -> Result<Vec<Filter>, InvalidFilter> {
    if mix == Mix::Wildcards {
        return (0..triggers).map(wildcard).collect();
    }
    let sizes = Sizes::of(triggers);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    (0..triggers).map(|place| filter(place % 20, mix, &sizes, &mut numbers)).collect()
}

fn wildcard(number: usize) -> Result<Filter, InvalidFilter> {
    let pattern = Pattern::new(&format!("tenants/%/orders/%{number:03}%"))?;
    Clauses::new(vec![Clause::like("subject", pattern)?]).map(Filter::Like)
}

fn filter(place: usize, mix: Mix, sizes: &Sizes, numbers: &mut Numbers) -> Result<Filter, InvalidFilter> {
    let a_type = sizes.type_name(numbers.below(sizes.types));
    let exact = |clauses: &[(&str, &str)]| clauses_of(clauses).map(Filter::Exact);
    let of_type = exact(&[("type", &a_type)])?;
    match place {
        12 | 13 => exact(&[("type", &a_type), ("region", REGIONS[numbers.below(REGIONS.len())])]),
        14 | 15 => {
            let group = sizes.group(numbers.below(sizes.groups));
            let tier = TIERS[numbers.below(TIERS.len())];
            let tier = match mix {
                Mix::Data => query(&format!("$[?$.tier == '{tier}']")),
                _ => exact(&[("tier", tier)])?,
            };
            Filter::all(vec![Filter::Prefix(clauses_of(&[("type", &group)])?), tier])
        }
        16 | 17 => {
            let shop = format!("/shop-{}", numbers.below(sizes.shops));
            clauses_of(&[("source", &shop)]).map(Filter::Suffix)
        }
        18 => {
            let amount = match mix {
                Mix::Data => query("$[?$.amount > 500]"),
                _ => exact(&[("large", "true")])?,
            };
            Filter::all(vec![of_type, amount])
        }
        19 => {
            let tests = Filter::negate(Filter::Prefix(clauses_of(&[("source", "/test/")])?))?;
            Filter::all(vec![of_type, tests])
        }
        _ => Ok(of_type),
    }
}

fn clauses_of(clauses: &[(&str, &str)]) -> Result<Clauses, InvalidFilter> {
    Clauses::new(clauses.iter().map(|(name, value)| Clause::new(name, value)).collect::<Result<_, _>>()?)
}

fn query(text: &str) -> Filter {
    Filter::Jsonpath(Query::parse(text).expect("the queries of the mix are valid"))
}

/// Events of about 600 bytes that some of so many triggers match, as they come in binary mode.
pub(crate) fn events(triggers: usize) -> Vec<Event> {
    let sizes = Sizes::of(triggers);
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    (0..EVENTS).map(|number| event(number, &sizes, &mut numbers)).collect()
}

fn event(number: usize, sizes: &Sizes, numbers: &mut Numbers) -> Event {
    let tier = TIERS[numbers.below(TIERS.len())];
    let amount = numbers.below(1_000);
    let (tenant, order) = (numbers.below(500), numbers.below(1_000_000));
    let data = format!(
        r#"{{"order":{{"id":"{order:06}-{number}","currency":"EUR","lines":[{{"sku":"A-{tenant}","quantity":2,"price":19.99}},{{"sku":"B-{order}","quantity":1,"price":5.5}}]}},"customer":{{"name":"Ada \"the first\" L.","email":"ada@example.com"}},"tier":"{tier}","amount":{amount},"test":false,"note":null}}"#
    );
    let source = format!(
        "/{}/tenant-{tenant}/shop-{}",
        if number.is_multiple_of(10) { "test" } else { "live" },
        numbers.below(sizes.shops)
    );
    let event = Event::builder(
        format!("{number:08}-0000-4000-8000-{order:012}"),
        source,
        sizes.type_name(numbers.below(sizes.types)),
    )
    .attribute("time", "2026-11-21T18:47:03.123456Z")
    .attribute("subject", format!("tenants/t{tenant}/orders/{order:06}"))
    .attribute("datacontenttype", "application/json")
    .attribute("region", REGIONS[numbers.below(REGIONS.len())])
    .attribute("tier", tier)
    .attribute("large", if amount > 500 { "true" } else { "false" })
    .data(data.into_bytes());
    event.build().expect("the events of the mix are valid")
}
