"""What `cs` (PyPI) makes of the fake. Usage: client.py get|post, with the environment of serve.rs."""

import os
import sys
import uuid

from cs import CloudStack, CloudStackApiException

ENDPOINT = os.environ["CLOUDSTACK_ENDPOINT"]
ZONE = os.environ["OMA_FAKE_ZONE"]
OFFERING = os.environ["OMA_FAKE_OFFERING"]
APPLIANCE = os.environ["OMA_FAKE_APPLIANCE"]


def client(key="CLOUDSTACK_KEY", secret="CLOUDSTACK_SECRET", **settings):
    settings = {"method": sys.argv[1], "poll_interval": 0.01, "fetch_result": True, **settings}
    return CloudStack(ENDPOINT, os.environ[key], os.environ[secret], **settings)


def refused(call, **arguments):
    """The code of the refusal, and all it says."""
    try:
        answer = call(**arguments)
    except CloudStackApiException as error:
        return error.error["errorcode"], error
    raise AssertionError(f"it was not refused: {answer}")


def create(api, name, **more):
    made = api.createVolume(name=name, zoneid=ZONE, diskofferingid=OFFERING, size=1, **more)
    return made["volume"]["id"]


def life(api):
    volume = create(api, "web01-disk-2000")
    [row] = api.listVolumes(id=volume)["volume"]
    assert (row["state"], row["size"]) == ("Allocated", 1 << 30), row
    attached = api.attachVolume(id=volume, virtualmachineid=APPLIANCE)["volume"]
    assert (attached["deviceid"], attached["state"]) == (1, "Ready"), attached
    code, error = refused(api.attachVolume, id=volume, virtualmachineid=APPLIANCE)
    assert code == 431 and "Job failure" in str(error), error
    code, error = refused(api.deleteVolume, id=volume)
    assert code == 431 and error.error["cserrorcode"] == 4350 and error.error["uuidList"], error
    assert error.response.headers["X-Description"] == error.error["errortext"]

    tags = [{"key": "oma.owner", "value": "site A/1"}, {"key": "oma.disk", "value": "disk-2000"}]
    assert api.createTags(resourcetype="Volume", resourceids=[volume], tags=tags) == {"success": True}
    assert api.listVolumes(tags={"key": "oma.owner", "value": "site A/1"})["count"] == 1
    [row] = api.listVolumes(id=volume)["volume"]
    assert sorted(tag["key"] for tag in row["tags"]) == ["oma.disk", "oma.owner"], row

    api.detachVolume(id=volume)
    assert api.deleteVolume(id=volume) == {"success": True}
    assert api.listVolumes(id=volume) == {}


def lists(api):
    volumes = {create(api, f"v{number}") for number in range(5)}
    for size in (2, 5, 500):
        rows = api.listVolumes(type="DATADISK", fetch_list=True, pagesize=size)
        assert {row["id"] for row in rows} == volumes and len(rows) == 5, rows
    assert api.listSnapshots(fetch_list=True) == []
    assert refused(api.listVolumes, page=1, pagesize=501)[0] == 431
    for volume in volumes:
        api.deleteVolume(id=volume)


def names(api):
    for name in ("a b+c", "a*b", "a/b=c&d:e@f,g;h", "Größe-日本", "!'()$"):
        volume = create(api, name)
        [row] = api.listVolumes(name=name)["volume"]
        assert (row["id"], row["name"]) == (volume, name), row
        api.deleteVolume(id=volume)
    # Python leaves a tilde as it is, Java does not: a mistake of the client that a server finds.
    code, error = refused(api.createVolume, name="a~b", zoneid=ZONE, diskofferingid=OFFERING, size=1)
    assert code == 401 and "cserrorcode" not in error.error, error


def rights(api):
    job = str(uuid.uuid4())
    create(api, "known by our own id", customjobid=job)
    assert api.queryAsyncJobResult(jobid=job, fetch_result=False)["jobstatus"] == 1
    wanted = str(uuid.uuid4())
    assert refused(create, api=api, name="mine", customid=wanted)[0] == 531
    admin = client("OMA_FAKE_ADMIN_KEY", "OMA_FAKE_ADMIN_SECRET")
    assert create(admin, "mine", customid=wanted) == wanted
    code, error = refused(create, api=admin, name="mine", customid=wanted)
    assert code == 431 and "already exists" in error.error["errortext"], error
    for volume in admin.listVolumes(type="DATADISK", listall=True)["volume"]:
        admin.deleteVolume(id=volume["id"])
    assert refused(client(secret="OMA_FAKE_ADMIN_SECRET").listZones)[0] == 401
    assert refused(api.listEverything)[0] == 401


def enforced(api):
    """The fake takes changes by POST and with a time only."""
    assert refused(client(expiration=-1).listZones)[0] == 401
    assert refused(client(expiration=3600).listZones)[0] == 401
    if sys.argv[1] == "get":
        assert refused(create, api=api, name="by GET")[0] == 400
    else:
        api.deleteVolume(id=create(api, "by POST"))


if os.environ.get("OMA_FAKE_ENFORCED"):
    enforced(client())
else:
    for part in (life, lists, names, rights):
        part(client())
    # Signed in the first version, which has no time.
    life(client(expiration=-1))
