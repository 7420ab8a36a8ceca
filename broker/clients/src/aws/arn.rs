//! Names of things in AWS.

/// An ARN: `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arn<'a> {
    /// `aws`, `aws-cn`, ...
    pub partition: &'a str,
    /// `sqs`, `s3`, ...
    pub service: &'a str,
    /// The region; empty where the name needs none.
    pub region: &'a str,
    /// The account; empty where the name needs none.
    pub account: &'a str,
    /// The name within the service.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// Reads an ARN; none where the text is no such.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        if next()? != "arn" {
            return None;
        }
        let (partition, service, region, account, resource) = (next()?, next()?, next()?, next()?, next()?);
        let named = !partition.is_empty() && !service.is_empty() && !resource.is_empty();
        named.then_some(Self { partition, service, region, account, resource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_has_six_parts() {
        let arn = Arn::parse("arn:aws-cn:sqs:cn-north-1:123456789012:orders.fifo").unwrap();
        assert_eq!((arn.partition, arn.service, arn.region), ("aws-cn", "sqs", "cn-north-1"));
        assert_eq!((arn.account, arn.resource), ("123456789012", "orders.fifo"));
        assert_eq!(Arn::parse("arn:aws:s3:::bucket/a:b").unwrap().resource, "bucket/a:b");
        for text in
            ["", "orders", "arn:aws:s3::bucket", "arn:aws:s3:::", "nra:aws:s3:::b", "https://a:b:c:d:e:f"]
        {
            assert_eq!(Arn::parse(text), None, "{text}");
        }
    }
}
