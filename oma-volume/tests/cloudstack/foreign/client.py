"""What `cs` (PyPI) makes of a cloud, the fake or a real one. Usage: client.py get|post, with the environment that serve.rs
prints. It makes volumes of 1 GiB, attaches one to the appliance, and deletes what it made and nothing else."""

import os
import sys
import uuid

from cs import CloudStack, CloudStackApiException

ENDPOINT = os.environ["CLOUDSTACK_ENDPOINT"]
ZONE = os.environ["OMA_CLOUD_ZONE"]
OFFERING = os.environ["OMA_CLOUD_OFFERING"]
APPLIANCE = os.environ["OMA_CLOUD_APPLIANCE"]
POLL_INTERVAL = float(os.environ.get("OMA_CLOUD_POLL_INTERVAL", "2"))
# In each name, so that nothing else is found.
RUN = f"oma-{uuid.uuid4().hex[:8]}"


def client(key="CLOUDSTACK_KEY", secret="CLOUDSTACK_SECRET", **settings):
    settings = {"method": sys.argv[1], "poll_interval": POLL_INTERVAL, "fetch_result": True, **settings}
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
    volume = create(api, f"{RUN} web01-disk-2000")
    [row] = api.listVolumes(id=volume)["volume"]
    assert (row["state"], row["size"]) == ("Allocated", 1 << 30), row
    attached = api.attachVolume(id=volume, virtualmachineid=APPLIANCE)["volume"]
    assert (attached["virtualmachineid"], attached["state"]) == (APPLIANCE, "Ready"), attached
    assert attached["deviceid"] not in (0, 3), attached
    code, error = refused(api.attachVolume, id=volume, virtualmachineid=APPLIANCE)
    assert code == 431 and "Job failure" in str(error), error
    code, error = refused(api.deleteVolume, id=volume)
    assert code == 431 and error.error["cserrorcode"] == 4350 and error.error["uuidList"], error
    assert error.response.headers["X-Description"] == error.error["errortext"]

    tags = [{"key": "oma.owner", "value": RUN}, {"key": "oma.disk", "value": "site A/1"}]
    assert api.createTags(resourcetype="Volume", resourceids=[volume], tags=tags) == {"success": True}
    assert api.listVolumes(tags={"key": "oma.owner", "value": RUN})["count"] == 1
    [row] = api.listVolumes(id=volume)["volume"]
    assert sorted(tag["key"] for tag in row["tags"]) == ["oma.disk", "oma.owner"], row

    api.detachVolume(id=volume)
    assert api.deleteVolume(id=volume) == {"success": True}
    assert api.listVolumes(id=volume) == {}


def lists(api):
    volumes = {create(api, f"{RUN} v{number}") for number in range(5)}
    for size in (2, 5, 500):
        rows = api.listVolumes(keyword=f"{RUN} v", fetch_list=True, pagesize=size)
        assert {row["id"] for row in rows} == volumes and len(rows) == 5, rows
    assert api.listVolumes(name=f"{RUN} none", fetch_list=True) == []
    assert refused(api.listVolumes, page=1, pagesize=501)[0] == 431
    for volume in volumes:
        api.deleteVolume(id=volume)


def names(api):
    for name in ("a b+c", "a*b", "a/b=c&d:e@f,g;h", "Größe-日本", "!'()$"):
        name = f"{RUN} {name}"
        volume = create(api, name)
        [row] = api.listVolumes(name=name)["volume"]
        assert (row["id"], row["name"]) == (volume, name), row
        api.deleteVolume(id=volume)
    # Python leaves a tilde as it is, Java does not: a mistake of the client that a server finds.
    code, error = refused(api.createVolume, name="a~b", zoneid=ZONE, diskofferingid=OFFERING, size=1)
    assert code == 401 and "cserrorcode" not in error.error, error


def rights(api):
    job = str(uuid.uuid4())
    volume = create(api, f"{RUN} known by our own id", customjobid=job)
    assert api.queryAsyncJobResult(jobid=job, fetch_result=False)["jobstatus"] == 1
    api.deleteVolume(id=volume)
    wanted = str(uuid.uuid4())
    assert refused(create, api=api, name=f"{RUN} mine", customid=wanted)[0] == 531
    assert refused(client(secret="CLOUDSTACK_KEY").listZones)[0] == 401
    assert refused(api.listEverything)[0] == 401


def chosen_ids():
    """Of a root administrator."""
    admin = client("OMA_CLOUD_ADMIN_KEY", "OMA_CLOUD_ADMIN_SECRET")
    wanted = str(uuid.uuid4())
    assert create(admin, f"{RUN} mine", customid=wanted) == wanted
    code, error = refused(create, api=admin, name=f"{RUN} mine", customid=wanted)
    assert code == 431 and "already exists" in error.error["errortext"], error
    admin.deleteVolume(id=wanted)


def enforced(api):
    """The cloud takes changes by POST and with a time only."""
    assert refused(client(expiration=-1).listZones)[0] == 401
    assert refused(client(expiration=3600).listZones)[0] == 401
    if sys.argv[1] == "get":
        assert refused(create, api=api, name="by GET")[0] == 400
    else:
        api.deleteVolume(id=create(api, "by POST"))


if os.environ.get("OMA_CLOUD_ENFORCED"):
    enforced(client())
else:
    for part in (life, lists, names, rights):
        part(client())
    if "OMA_CLOUD_ADMIN_KEY" in os.environ:
        chosen_ids()
    # Signed in the first version, which has no time.
    life(client(expiration=-1))
