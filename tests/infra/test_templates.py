"""The CloudFormation templates: linted by cfn-lint, and deployed to moto with its IAM enforced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tasks import manifest
from tasks.decision_keys import decision_key
from tasks.s3_server import S3Endpoint
from tasks.store import Store, blob_key
from tasks.store_client import client_of as client_of_location
from tests.infra.templates import INFRA, ROLES, plain, statements, template

REGION = "eu-central-1"
POINTER, DECISION = manifest.channel_key("m", "demo"), decision_key("m", "d", "ada")
CANDIDATE, RELEASE = manifest.candidate_key("m", "v"), manifest.release_key("m", "v")
BLOB = blob_key("0" * 64)
TASK_ROLES = {"EditRole": "Editor", "VerifyRole": "Reader", "ReleaseRole": "Promoter"}
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS")  # types that moto lacks; cfn-lint reads those


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A boto3 session whose account is moto's."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield boto3.session.Session("moto", "moto", region_name=REGION)


def deploy(aws: Any, name: str, **parameters: str) -> dict[str, str]:
    """The outputs of a template's stack."""
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    cloud = aws.client("cloudformation")
    stack = {"bucket": "suture", "workers": "suture-workers"}[name]
    cloud.create_stack(StackName=stack, TemplateBody=(INFRA / f"{name}.yaml").read_text(), Parameters=given,
                       Capabilities=["CAPABILITY_IAM"])
    made = cloud.describe_stacks(StackName=stack)["Stacks"][0]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}


@pytest.mark.parametrize("name", ["bucket", "workers"])
def test_cfn_lint_finds_nothing(name: str) -> None:
    text = (INFRA / f"{name}.yaml").read_text()
    assert faults(text) == []
    assert faults(text.replace("DeletionPolicy: Retain", "DeletionPolicy: Keep")), "it finds nothing in a broken one either"


def faults(text: str) -> list[str]:
    from cfnlint.api import lint_all

    # informational ones ask for descriptions made for other programs
    return [str(found) for found in lint_all(text) if not found.rule.id.startswith("I")]


def test_the_store_is_made_with_its_key_its_inbox_and_its_policies(aws: Any) -> None:
    outputs = deploy(aws, "bucket", BucketName="my-models", Prefix="team", LockDays="30", KeepDays="60")
    assert (outputs["Store"], outputs["Inbox"]) == ("s3://my-models/team", "s3://my-models-inbox/sheets")
    for bucket in ("my-models", "my-models-inbox"):
        rule = aws.client("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
        given = rule["ApplyServerSideEncryptionByDefault"]
        assert (given["SSEAlgorithm"], given["KMSMasterKeyID"]) == ("aws:kms", outputs["KeyArn"])
    assert aws.client("kms").get_key_rotation_status(KeyId=outputs["KeyArn"])["KeyRotationEnabled"]
    for role in ROLES:
        version = aws.client("iam").get_policy_version(PolicyArn=outputs[role.title()], VersionId="v1")["PolicyVersion"]
        filled = json.dumps(statements(role)).replace("BUCKET", "my-models").replace("PREFIX", "team")
        assert version["Document"]["Statement"] == json.loads(filled.replace("KEY_ARN", outputs["KeyArn"]))


def test_moto_enforces_what_each_role_may_not(aws: Any) -> None:
    """moto knows no conditions and no bucket policy of ours: the identity policies alone, by another's reading of them."""
    from botocore.exceptions import ClientError
    from moto.core import set_initial_no_auth_action_count

    outputs = deploy(aws, "bucket", BucketName="my-models", Prefix="team")
    iam, clients = aws.client("iam"), {}
    for role in ROLES:
        iam.create_user(UserName=role)
        iam.attach_user_policy(UserName=role, PolicyArn=outputs[role.title()])
        clients[role] = client_of(aws, iam.create_access_key(UserName=role)["AccessKey"])

    def may(role: str, key: str) -> bool:
        try:
            clients[role].put_object(Bucket="my-models", Key=f"team/{key}", Body=b"{}")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied"  # noqa: PT017
            return False
        return True

    @set_initial_no_auth_action_count(0)
    def ask_all() -> dict[str, list[str]]:
        return {key: [role for role in ROLES if may(role, key)] for key in (POINTER, RELEASE, DECISION, CANDIDATE, BLOB)}

    assert ask_all() == {POINTER: ["promoter"], RELEASE: ["promoter"], DECISION: ["approver"], CANDIDATE: ["editor"],
                         BLOB: ["editor", "promoter"]}


def test_the_work_pool_is_made_on_top_of_the_store(aws: Any) -> None:
    deploy(aws, "bucket", BucketName="my-models", Prefix="team")
    network = aws.client("ec2")
    vpc = network.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = network.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    # moto holds the plain machine image only
    outputs = deploy(aws, "workers", VpcId=vpc, SubnetIds=subnet,
                     GpuImage="/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")
    roles = {role["Arn"] for role in aws.client("iam").list_roles()["Roles"]}
    assert {outputs[f"{name}RoleArn"] for name in ("Start", "Edit", "Verify", "Release", "Worker")} <= roles
    images = aws.client("ecr").describe_repositories(repositoryNames=["suture"])["repositories"][0]
    assert images["imageTagMutability"] == "IMMUTABLE"
    task = aws.client("ecs").describe_task_definition(taskDefinition="suture-gpu")["taskDefinition"]
    container = task["containerDefinitions"][0]
    assert container["resourceRequirements"] == [{"type": "GPU", "value": "1"}]
    assert (container["user"], container["readonlyRootFilesystem"]) == ("10001:10001", True)


def test_each_task_has_one_policy_of_the_store() -> None:
    made = template("workers")["Resources"]
    for role, policy in TASK_ROLES.items():
        imported = {"Fn::ImportValue": {"Fn::Sub": f"${{StoreStack}}-{policy}"}}
        assert made[role]["Properties"]["ManagedPolicyArns"] == [imported]
        assert template("bucket")["Outputs"][policy]["Export"] == {"Name": {"Fn::Sub": f"${{AWS::StackName}}-{policy}"}}


@pytest.mark.flow
def test_the_code_works_on_a_bucket_that_is_locked_as_the_template_says(s3_http: S3Endpoint, bucket: str) -> None:
    from botocore.exceptions import ClientError

    location = s3_http.location(bucket)
    s3 = client_of_location(location)
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    lock = plain(template("bucket")["Resources"]["Bucket"]["Properties"]["ObjectLockConfiguration"])
    lock["Rule"]["DefaultRetention"]["Days"] = 1
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock)
    store = Store(location)
    blob = store.put_blob(b"weights").digest
    assert store.put_new(RELEASE, b"{}")
    assert not store.put_new(RELEASE, b"{}")
    moved = store.swap_pointer(POINTER, b"1", store.swap_pointer(POINTER, b"0", None))
    assert store.get_bytes(POINTER) == (b"1", moved)
    for key, versions in ((RELEASE, 1), (POINTER, 2), (blob_key(blob), 1)):
        kept = s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
        assert len(kept) == versions
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.delete_object(Bucket=bucket, Key=key, VersionId=kept[-1]["VersionId"])


def client_of(aws: Any, key: dict[str, str]) -> Any:
    return aws.client("s3", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
