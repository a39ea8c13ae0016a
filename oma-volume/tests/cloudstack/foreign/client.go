// What go-cloudstack (Debian) makes of the fake, with the environment of serve.rs.
package main

import (
	"log"
	"os"
	"strings"

	"github.com/xanzy/go-cloudstack/cloudstack"
)

var zone, offering, appliance = os.Getenv("OMA_CLOUD_ZONE"), os.Getenv("OMA_CLOUD_OFFERING"), os.Getenv("OMA_CLOUD_APPLIANCE")

func must(err error) {
	if err != nil {
		log.Output(2, err.Error())
		os.Exit(1)
	}
}

func want(holds bool, what string) {
	if !holds {
		log.Output(2, "it does not hold: "+what)
		os.Exit(1)
	}
}

func refused(err error, begin string) {
	if err == nil || !strings.HasPrefix(err.Error(), begin) {
		log.Output(2, "no "+begin)
		log.Fatal(err)
	}
}

func create(api *cloudstack.CloudStackClient, name string) (string, error) {
	p := api.Volume.NewCreateVolumeParams()
	p.SetName(name)
	p.SetZoneid(zone)
	p.SetDiskofferingid(offering)
	p.SetSize(1)
	made, err := api.Volume.CreateVolume(p)
	if err != nil {
		return "", err
	}
	return made.Id, nil
}

func remove(api *cloudstack.CloudStackClient, volume string) error {
	_, err := api.Volume.DeleteVolume(api.Volume.NewDeleteVolumeParams(volume))
	return err
}

func life(api *cloudstack.CloudStackClient) {
	volume, err := create(api, "web01-disk-2000")
	must(err)
	row, _, err := api.Volume.GetVolumeByName("web01-disk-2000")
	must(err)
	want(row.Id == volume && row.State == "Allocated" && row.Size == 1<<30, "a row that was allocated")
	attached, err := api.Volume.AttachVolume(api.Volume.NewAttachVolumeParams(volume, appliance))
	must(err)
	want(attached.Deviceid == 1 && attached.Virtualmachineid == appliance, "it is at number 1")
	_, err = api.Volume.AttachVolume(api.Volume.NewAttachVolumeParams(volume, appliance))
	refused(err, "Undefined error: {\"errorcode\":431")
	refused(remove(api, volume), "CloudStack API error 431 (CSExceptionErrorCode: 4350): ")

	tags := map[string]string{"oma.owner": "site A/1", "oma.disk": "disk-2000"}
	_, err = api.Resourcetags.CreateTags(api.Resourcetags.NewCreateTagsParams([]string{volume}, "Volume", tags))
	must(err)
	p := api.Resourcetags.NewListTagsParams()
	p.SetResourceid(volume)
	listed, err := api.Resourcetags.ListTags(p)
	must(err)
	want(listed.Count == 2 && len(listed.Tags) == 2, "two tags")
	row, _, err = api.Volume.GetVolumeByID(volume)
	must(err)
	want(len(row.Tags) == 2 && row.State == "Ready", "the volume shows them")

	d := api.Volume.NewDetachVolumeParams()
	d.SetId(volume)
	_, err = api.Volume.DetachVolume(d)
	must(err)
	must(remove(api, volume))
	_, count, err := api.Volume.GetVolumeByID(volume)
	want(err != nil && count == 0, "it is gone")
}

func names(api *cloudstack.CloudStackClient) {
	for _, name := range []string{"a b+c", "a/b=c&d:e@f,g;h", "Größe-日本", "!'()$"} {
		volume, err := create(api, name)
		must(err)
		row, _, err := api.Volume.GetVolumeByName(name)
		must(err)
		want(row.Id == volume && row.Name == name, name)
		must(remove(api, volume))
	}
	// Go encodes an asterisk and leaves a tilde, Java does the opposite of both: mistakes of the client that a server finds.
	for _, name := range []string{"a*b", "a~b"} {
		_, err := create(api, name)
		refused(err, "CloudStack API error 401 ")
	}
}

func main() {
	api := cloudstack.NewAsyncClient(os.Getenv("CLOUDSTACK_ENDPOINT"), os.Getenv("CLOUDSTACK_KEY"), os.Getenv("CLOUDSTACK_SECRET"), true)
	zones, err := api.Zone.ListZones(api.Zone.NewListZonesParams())
	must(err)
	want(zones.Count == 2 && zones.Zones[0].Id == zone, "two zones")
	machine, _, err := api.VirtualMachine.GetVirtualMachineByID(appliance)
	must(err)
	want(machine.State == "Running", "the appliance runs")
	life(api)
	names(api)
	stranger := cloudstack.NewAsyncClient(os.Getenv("CLOUDSTACK_ENDPOINT"), os.Getenv("CLOUDSTACK_KEY"), "wrong", true)
	_, err = stranger.Zone.ListZones(stranger.Zone.NewListZonesParams())
	refused(err, "CloudStack API error 401 ")
}
