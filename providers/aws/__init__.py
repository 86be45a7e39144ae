"""Amazon Web Services: machines of EC2, on the accounts of the people who start them."""

from providers.aws.driver import AwsProvider

__all__ = ["AwsProvider"]
