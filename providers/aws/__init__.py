"""Amazon Web Services, far enough to sign in, to ask who one is, and to check what the account permits."""

from providers.aws.driver import AwsProvider

__all__ = ["AwsProvider"]
