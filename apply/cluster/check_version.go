package cluster

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"pannier/bundle/objects"
	"pannier/bundle/release"
)

// condition runs a check on one condition of the cluster version.
func (in *inspection) condition(ctx context.Context, name string, judge func(*clusterVersion, condition) Check) Check {
	cv, err := in.version(ctx)
	if err != nil {
		return unseen(err)
	}
	return judge(cv, cv.Status.Conditions.get(name))
}

func checkInvalid(ctx context.Context, in *inspection) Check {
	return in.condition(ctx, "Invalid", func(_ *clusterVersion, c condition) Check {
		if c.Status == "True" {
			return fail("the cluster version object is invalid: "+c.text(), "correct clusterversion/version first")
		}
		return pass("the cluster version object is valid")
	})
}

func checkFailing(ctx context.Context, in *inspection) Check {
	return in.condition(ctx, "Failing", func(_ *clusterVersion, c condition) Check {
		if c.Status == "True" {
			return fail("the cluster fails to reconcile its version: "+c.text(), "repair what the message names; oc adm upgrade shows it too")
		}
		return pass("the cluster reconciles its version without failure")
	})
}

func checkProgressing(ctx context.Context, in *inspection) Check {
	return in.condition(ctx, "Progressing", func(_ *clusterVersion, c condition) Check {
		if c.Status == "True" {
			return fail("the cluster is already updating: "+c.text(), "wait for it to finish")
		}
		return pass("no update is under way" + strings.TrimSuffix(": "+c.text(), ": "))
	})
}

func checkAccepted(ctx context.Context, in *inspection) Check {
	return in.condition(ctx, "ReleaseAccepted", func(cv *clusterVersion, c condition) Check {
		switch {
		case c.Status == "":
			return skip("this cluster's version has no such condition")
		case c.Status == "False" && in.opts.Target != nil && cv.asks(digestOf(in.opts.Target.Image)):
			return warn("this release was refused before: "+c.text(), "it is asked for again")
		case c.Status == "False":
			return fail("another release was asked for and refused: "+c.text(), "withdraw that request first: oc adm upgrade --clear")
		}
		return pass("the last release asked for was accepted")
	})
}

// asks reports whether the cluster has been asked for a release.
func (cv *clusterVersion) asks(digest string) bool {
	return digest != "" && cv.Spec.DesiredUpdate != nil && digestOf(cv.Spec.DesiredUpdate.Image) == digest
}

func checkDowngrade(ctx context.Context, in *inspection) Check {
	from, to, c := in.versions(ctx)
	if c != nil {
		return *c
	}
	cv, _ := in.version(ctx)
	switch {
	case cv.Status.Desired.Image != "" && digestOf(cv.Status.Desired.Image) == digestOf(in.opts.Target.Image):
		return pass("the cluster is at " + in.opts.Target.Version)
	case to.compare(from) < 0:
		return fail(fmt.Sprintf("%s is older than %s, which the cluster runs: a downgrade is not supported and breaks clusters", in.opts.Target.Version, cv.current()), "choose a newer release")
	case to.compare(from) == 0:
		return fail(fmt.Sprintf("the cluster runs %s already, from another image (%s)", cv.current(), cv.Status.Desired.Image), "to change to the multi-architecture payload, use oc adm upgrade --to-multi-arch")
	}
	return pass(fmt.Sprintf("from %s to %s", cv.current(), in.opts.Target.Version))
}

func checkSkippedMinor(ctx context.Context, in *inspection) Check {
	from, to, c := in.versions(ctx)
	if c != nil {
		return *c
	}
	cv, _ := in.version(ctx)
	named := slices.Contains(in.opts.Target.Previous, cv.current())
	switch {
	case to.Major == from.Major && to.Minor <= from.Minor+1:
		return pass(fmt.Sprintf("%d.%d to %d.%d", from.Major, from.Minor, to.Major, to.Minor))
	case to.Major == from.Major+1 && to.Minor == 0 && named:
		return pass("the release names this version as one that it updates")
	}
	return fail(fmt.Sprintf("%s to %s leaves out a minor version: updates go one minor version at a time", cv.current(), in.opts.Target.Version), "update to a release of the next minor version first")
}

func checkPath(ctx context.Context, in *inspection) Check {
	_, _, c := in.versions(ctx)
	if c != nil {
		return *c
	}
	cv, _ := in.version(ctx)
	digest := digestOf(in.opts.Target.Image)
	for _, u := range cv.Status.ConditionalUpdates {
		if digestOf(u.Release.Image) == digest && !u.Conditions.isTrue("Recommended") {
			return warn("the update is known, and not recommended for this cluster: "+u.Conditions.get("Recommended").text(), "read the risks before going on")
		}
	}
	if slices.ContainsFunc(cv.Status.AvailableUpdates, func(r releaseRef) bool { return digestOf(r.Image) == digest }) {
		return pass("the cluster's update service recommends it")
	}
	if c := recordedPath(in.opts.Target, cv.current()); c != nil {
		return *c
	}
	if !slices.Contains(in.opts.Target.Previous, cv.current()) {
		return warn(fmt.Sprintf("%s does not name %s among the versions that it updates", in.opts.Target.Version, cv.current()), "check the path on a machine with internet (the update graph); an intermediate release may be needed")
	}
	return pass(fmt.Sprintf("%s names %s among the versions that it updates", in.opts.Target.Version, cv.current()))
}

// recordedPath judges by the update graph as it was when the release was packed; nil if that
// has nothing to say of this cluster's version.
func recordedPath(t *Target, current string) *Check {
	i := slices.IndexFunc(t.Updates, func(u objects.Update) bool { return u.From == current })
	if i < 0 {
		return nil
	}
	risks := t.Updates[i].Risks
	if len(risks) == 0 {
		c := pass(fmt.Sprintf("the path that was packed leads from %s to %s, without conditions", current, t.Version))
		return &c
	}
	var what, how []string
	for _, r := range risks {
		what = append(what, strings.TrimSuffix(fmt.Sprintf("%s: %s (%s)", r.Name, strings.Join(strings.Fields(r.Message), " "), r.URL), " ()"))
		for _, q := range r.Queries() {
			how = append(how, fmt.Sprintf("%s concerns this cluster if this query gives 1: %s", r.Name, q))
		}
	}
	c := warn(fmt.Sprintf("the update from %s to %s is recommended only to clusters that this does not concern: %s", current, t.Version, strings.Join(what, "; ")),
		strings.Join(append([]string{"read the risks before going on"}, how...), "; "))
	return &c
}

var acceptedArchitecture = regexp.MustCompile(`architecture="([^"]*)"`)

func checkArchitecture(ctx context.Context, in *inspection) Check {
	if in.opts.Target == nil {
		return skip("no release is named")
	}
	cv, err := in.version(ctx)
	if err != nil {
		return unseen(err)
	}
	all, err := in.nodes(ctx)
	if err != nil {
		return unseen(err)
	}
	found := map[string]bool{}
	for _, n := range all {
		if a := n.Status.NodeInfo.Architecture; a != "" {
			found[a] = true
		}
	}
	archs := slices.Sorted(maps.Keys(found))
	want := release.GoArch(in.opts.Target.Arch)
	runs := "" // what the payload of now is, where the cluster says so
	if m := acceptedArchitecture.FindStringSubmatch(cv.Status.Conditions.get("ReleaseAccepted").Message); m != nil {
		runs = strings.ToLower(m[1])
	}
	text := fmt.Sprintf("the release is for %s, the nodes are %s", in.opts.Target.Arch, strings.Join(archs, ", "))
	switch {
	case want == "multi" && runs != "" && runs != "multi":
		return fail("the release is for several architectures, the cluster runs a payload for "+runs, "change to the multi-architecture payload of the same version first: oc adm upgrade --to-multi-arch")
	case want == "multi" && runs == "":
		return warn(text+"; whether the cluster runs a multi-architecture payload is not known", "")
	case want != "multi" && (runs == "multi" || len(archs) > 1):
		return fail(text+"; the cluster runs a payload for several architectures", "pack the release with --arch multi")
	case want != "multi" && len(archs) == 1 && archs[0] != want:
		return fail(text, "pack the release for the architecture of the nodes (--arch)")
	case len(archs) == 0:
		return warn("no node tells its architecture", "")
	}
	return pass(text)
}

func checkUpgradeable(ctx context.Context, in *inspection) Check {
	cv, err := in.version(ctx)
	if err != nil {
		return unseen(err)
	}
	var no []string
	if c := cv.Status.Conditions.get("Upgradeable"); c.Status == "False" {
		no = append(no, c.text())
	} else if all, err := in.clusterOperators(ctx); err == nil {
		for _, co := range all {
			if c := co.Status.Conditions.get("Upgradeable"); c.Status == "False" {
				no = append(no, "clusteroperator "+co.Metadata.Name+": "+c.text())
			}
		}
	}
	switch {
	case len(no) == 0:
		return pass("nothing stands against an update to the next minor version")
	case in.opts.Target == nil:
		return warn("an update to the next minor version is barred: "+strings.Join(no, "; "), "do what the messages ask before such an update")
	case in.minor(ctx):
		return fail("an update to another minor version is barred: "+strings.Join(no, "; "), "do what the messages ask")
	}
	return warn("an update to the next minor version would be barred, this one is within the minor version: "+strings.Join(no, "; "), "")
}

func checkOverrides(ctx context.Context, in *inspection) Check {
	cv, err := in.version(ctx)
	if err != nil {
		return unseen(err)
	}
	var all []string
	for _, o := range cv.Spec.Overrides {
		if o.Unmanaged {
			all = append(all, o.Kind+" "+strings.Trim(o.Namespace+"/"+o.Name, "/"))
		}
	}
	if len(all) > 0 {
		return fail("the cluster version operator is told not to manage "+names(all)+": updates are barred", "remove spec.overrides from clusterversion/version")
	}
	return pass("no overrides")
}

var gateRule = regexp.MustCompile(`^ack-([4-5]\.[0-9]+)-[^-]`)

func checkGates(ctx context.Context, in *inspection) Check {
	cv, err := in.version(ctx)
	if err != nil {
		return unseen(err)
	}
	from, ok := parseVersion(cv.current())
	if !ok {
		return skip("the cluster's version is not known")
	}
	var gates, acks configMap
	if err := in.c.get(ctx, configMaps, "openshift-config-managed", "admin-gates", &gates); err != nil && !isNotFound(err) {
		return unseen(err)
	}
	if err := in.c.get(ctx, configMaps, "openshift-config", "admin-acks", &acks); err != nil && !isNotFound(err) {
		return unseen(err)
	}
	var open, keys []string
	for _, key := range slices.Sorted(maps.Keys(gates.Data)) {
		m := gateRule.FindStringSubmatch(key)
		if m != nil && m[1] == fmt.Sprintf("%d.%d", from.Major, from.Minor) && acks.Data[key] != "true" {
			keys = append(keys, key)
			open = append(open, key+": "+strings.Join(strings.Fields(gates.Data[key]), " "))
		}
	}
	if len(open) == 0 {
		return pass("nothing waits to be acknowledged")
	}
	detail := "not acknowledged: " + strings.Join(open, "; ")
	remedy := "read it, do what it asks, and then acknowledge it yourself: "
	for i, key := range keys {
		if i > 0 {
			remedy += "; "
		}
		remedy += fmt.Sprintf(`oc -n openshift-config patch cm admin-acks --type=merge -p '{"data":{%q:"true"}}'`, key)
	}
	if in.opts.Target == nil || !in.minor(ctx) {
		return warn(detail, "needed before an update to the next minor version: "+remedy)
	}
	return fail(detail, remedy)
}
