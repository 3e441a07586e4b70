"""The checks that BuildKit has for Dockerfiles, by their names, and which of them are wanted. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from berth.dockerfile.mounts import FALSE, TRUE
from berth.errors import InvalidArgument

DOCS = "https://docs.docker.com/go/dockerfile/rule/"
ALL = "all"
MAX_PARTS = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """One check. ``page``: what its documentation is called."""

    name: str
    page: str
    description: str
    is_experimental: bool = False

    @property
    def url(self) -> str:
        """Where it is explained, "" for nowhere."""
        return f"{DOCS}{self.page}/" if self.page else ""


STAGE_NAME_CASING = Rule("StageNameCasing", "stage-name-casing", "Stage names should be lowercase")
FROM_AS_CASING = Rule(
    "FromAsCasing",
    "from-as-casing",
    "The 'as' keyword should match the case of the 'from' keyword",
)
NO_EMPTY_CONTINUATION = Rule(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
)
CONSISTENT_INSTRUCTION_CASING = Rule(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
)
DUPLICATE_STAGE_NAME = Rule(
    "DuplicateStageName", "duplicate-stage-name", "Stage names should be unique"
)
RESERVED_STAGE_NAME = Rule(
    "ReservedStageName",
    "reserved-stage-name",
    "Reserved words should not be used as stage names",
)
JSON_ARGS_RECOMMENDED = Rule(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
)
MAINTAINER_DEPRECATED = Rule(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
)
UNDEFINED_ARG_IN_FROM = Rule(
    "UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs"
)
WORKDIR_RELATIVE_PATH = Rule(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results"
    " if the base image changes",
)
UNDEFINED_VAR = Rule(
    "UndefinedVar", "undefined-var", "Variables should be defined before their use"
)
MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
)
LEGACY_KEY_VALUE_FORMAT = Rule(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
)
INVALID_BASE_IMAGE_PLATFORM = Rule(
    "InvalidBaseImagePlatform", "", "Base image platform does not match expected target platform"
)
REDUNDANT_TARGET_PLATFORM = Rule(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
)
SECRETS_USED_IN_ARG_OR_ENV = Rule(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
)
INVALID_DEFAULT_ARG_IN_FROM = Rule(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
)
COPY_IGNORED_FILE = Rule(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore",
)
INVALID_DEFINITION_DESCRIPTION = Rule(
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`."
    " If this is not intended to be a description comment, add an empty line or comment between the"
    " instruction and the comment.",
    is_experimental=True,
)
EXPOSE_PROTO_CASING = Rule(
    "ExposeProtoCasing",
    "expose-proto-casing",
    "Protocol in EXPOSE instruction should be lowercase",
)
EXPOSE_INVALID_FORMAT = Rule(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error"
    " in a future release",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which checks are wanted; ``fails``: what they find ends the build."""

    skipped: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    fails: bool = False

    def wants(self, rule: Rule) -> bool:
        """Say whether a check is."""
        if rule.is_experimental:
            return not self.experimental.isdisjoint((ALL, rule.name))
        return self.skipped.isdisjoint((ALL, rule.name))

    def with_more(self, other: Options) -> Options:
        """Return them with what else is skipped, or wanted."""
        return replace(
            self,
            skipped=self.skipped | other.skipped,
            experimental=self.experimental | other.experimental,
        )


def options_of(text: str) -> Options:
    """Read ``skip=A,B;error=true;experimental=all``. InvalidArgument in BuildKit's words."""
    options = Options()
    for part in text.split(";", MAX_PARTS - 1) if text.strip() else ():
        key, equals, value = part.partition("=")
        names = frozenset(name.strip() for name in value.split(","))
        if not equals:
            raise InvalidArgument(f'invalid check option "{part}"')
        match key.strip():
            case "skip":
                options = replace(options, skipped=names)
            case "experimental":
                options = replace(options, experimental=names)
            case "error" if value.strip() in (*TRUE, *FALSE):
                options = replace(options, fails=value.strip() in TRUE)
            case "error":
                raise InvalidArgument(f'failed to parse check option "{part}"')
            case other:
                raise InvalidArgument(f'invalid check option "{other}"')
    return options
