package trend

import "stanch/internal/series"

// resource is something that can run out, and the series that tell of it.
type resource struct {
	name    string
	metrics []series.Metric // the first of which there is a series is judged
	plus    series.Metric   // added to it, "" for none
	part    string          // of the metric that is judged, "" where it has none
	of      owner
	// least is the growth below which nothing is said: less is in any program.
	least float64
	// step is the least size of a step.
	step float64
}

// owner is what a resource belongs to.
type owner int

const (
	ofProcess owner = iota
	ofCgroup
	ofHost
)

// resources are all of them. A megabyte hides a leak for nobody: what is lost
// by a few pages takes years to matter, and page tables and stacks move as much.
var resources = []resource{
	{name: "memory", metrics: []series.Metric{series.Anonymous, series.RSS}, plus: series.Swap, least: 64 << 10, step: 32 << 10},
	{name: "address space", metrics: []series.Metric{series.Virtual}, least: 1 << 20, step: 128 << 10},
	{name: "descriptors", metrics: []series.Metric{series.FDs}, least: 4, step: 1},
	{name: "threads", metrics: []series.Metric{series.Threads}, least: 4, step: 1},
	{name: "zombies", metrics: []series.Metric{series.Zombies}, least: 4, step: 1},
	{name: "cgroup memory", metrics: []series.Metric{series.CgroupMemory}, of: ofCgroup, least: 256 << 10, step: 128 << 10},
	{name: "tasks", metrics: []series.Metric{series.CgroupTasks}, of: ofCgroup, least: 4, step: 1},
	{name: "slab", metrics: []series.Metric{series.HostSlab}, of: ofHost, least: 4 << 20, step: 1 << 20},
	{name: "committed memory", metrics: []series.Metric{series.HostCommitted}, of: ofHost, least: 16 << 20, step: 4 << 20},
	{name: "tracked connections", metrics: []series.Metric{series.HostConntrack}, of: ofHost, least: 256, step: 64},
	{name: "open files", metrics: []series.Metric{series.HostFiles}, of: ofHost, least: 64, step: 16},
	{name: "sockets", metrics: []series.Metric{series.HostSockets}, part: "all", of: ofHost, least: 16, step: 4},
}
