package clustertest

import (
	"context"
	"net/url"
	"strings"
)

// Silent is the answer of a node that says nothing about a pod.
const Silent = "\x00silent"

// Pull lets the nodes of a pool answer to pods: "" pulls the image if the node has a mirror
// for it, Silent never says anything, and any other text is why no image can be pulled.
func (s *Site) Pull(pool, answer string) {
	s.set(func() {
		if s.pulls == nil {
			s.pulls = map[string]string{}
		}
		s.pulls[pool] = answer
	})
}

// kubelets makes one step with every pod that has been put on a node.
func (s *Site) kubelets(ctx context.Context) {
	pods, err := s.Plane.List(ctx, "/api/v1/namespaces/default/pods")
	if err != nil {
		return
	}
	for _, p := range pods {
		pool, _, _ := strings.Cut(p.Text("spec", "nodeName"), "-")
		if pool == "" || s.pulls[pool] == Silent {
			continue
		}
		// What goes wrong, as when the pod is removed meanwhile, is seen at the next look.
		s.Plane.PatchStatus(ctx, "/api/v1/namespaces/default/pods/"+p.Name(), s.pull(ctx, p, s.pulls[pool]))
	}
}

// pull is the next status of a pod: first its image is being pulled, then it is there and the
// container has ended, or it is not.
func (s *Site) pull(ctx context.Context, p Object, why string) Object {
	container := func(image string, state Object) []Object {
		return []Object{{"name": "probe", "image": "x", "imageID": image, "ready": false, "restartCount": 0, "state": state}}
	}
	waiting := func(reason, message string) Object {
		return Object{"phase": "Pending", "containerStatuses": container("", Object{"waiting": Object{"reason": reason, "message": message}})}
	}
	if len(p.Objects("status", "containerStatuses")) == 0 {
		return waiting("ContainerCreating", "")
	}
	image := p.Objects("spec", "containers")[0].Text("image")
	if why == "" && !s.mirrored(ctx, p.Text("spec", "nodeName"), image) {
		why = "pinging container registry: dial tcp: lookup quay.io: no such host"
	}
	if why != "" {
		return waiting("ImagePullBackOff", `Back-off pulling image "`+image+`": ErrImagePull: `+why)
	}
	return Object{"phase": "Succeeded", "containerStatuses": container(image, Object{"terminated": Object{"exitCode": 0}})}
}

// mirrored reports whether a node has a mirror for the repository of an image.
func (s *Site) mirrored(ctx context.Context, node, image string) bool {
	n, err := s.Plane.Get(ctx, "/api/v1/nodes/"+node)
	if err != nil {
		return false
	}
	config, err := s.Plane.Get(ctx, "/apis/machineconfiguration.openshift.io/v1/machineconfigs/"+n.Text("metadata", "annotations", mcoPrefix+"currentConfig"))
	if err != nil {
		return false
	}
	repository, _, _ := strings.Cut(image, "@")
	for _, f := range config.Objects("spec", "config", "storage", "files") {
		if text, err := url.PathUnescape(f.Text("contents", "source")); err == nil && strings.Contains(text, `location = "`+repository+`"`) {
			return true
		}
	}
	return false
}
