package clustertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"
)

// Load makes the objects of YAML text exist as they stand there, status included, and gives
// them back as the server has them: for dumps of real clusters, `oc get -o yaml`. What a
// server decides itself (uid, resourceVersion, times) is new. An observedGeneration keeps
// its distance from the generation of its object.
func (c *Client) Load(ctx context.Context, text []byte) ([]Object, error) {
	list, err := Decode(text)
	if err != nil {
		return nil, err
	}
	for i, o := range list {
		if list[i], err = c.load(ctx, o); err != nil {
			return nil, fmt.Errorf("load %s %s: %w", o.Text("kind"), o.Name(), err)
		}
	}
	return list, nil
}

func (c *Client) load(ctx context.Context, o Object) (Object, error) {
	if ns := o.Namespace(); ns != "" {
		if err := c.ensureNamespace(ctx, ns); err != nil {
			return nil, err
		}
	}
	generation := o.Generation()
	body := Object{}
	for field, v := range o {
		if field != "status" {
			body[field] = v
		}
	}
	meta := Object{}
	for _, field := range []string{"name", "namespace", "labels", "annotations"} {
		if v := o.At("metadata", field); v != nil {
			meta[field] = v
		}
	}
	body["metadata"] = meta
	live, err := c.put(ctx, body)
	if err != nil {
		return nil, err
	}
	status, _ := o["status"].(map[string]any)
	if len(status) == 0 {
		return live, nil
	}
	if observed := o.Int("status", "observedGeneration"); observed > 0 && generation > 0 {
		status["observedGeneration"] = live.Generation() - generation + observed
	}
	path, err := c.Path(ctx, live)
	if err != nil {
		return nil, err
	}
	return c.PutStatus(ctx, path, status)
}

// put creates the object, or replaces all but the status of the one that is there.
func (c *Client) put(ctx context.Context, o Object) (Object, error) {
	live, err := c.Create(ctx, o)
	if !errors.Is(err, ErrConflict) {
		return live, err
	}
	path, err := c.Path(ctx, o)
	if err != nil {
		return nil, err
	}
	return c.replace(ctx, path, "", func(live Object) Object {
		next, meta := Object{}, Object{"resourceVersion": live.At("metadata", "resourceVersion")}
		maps.Copy(next, o)
		wanted, _ := o["metadata"].(Object)
		maps.Copy(meta, wanted)
		next["metadata"] = meta
		return next
	})
}

func (c *Client) ensureNamespace(ctx context.Context, name string) error {
	_, err := c.Create(ctx, Object{"apiVersion": "v1", "kind": "Namespace", "metadata": Object{"name": name}})
	if errors.Is(err, ErrConflict) {
		return nil // it exists
	}
	return err
}

// Reset removes what tests put into the plane: the objects of all CRDs, nodes, and in the
// namespaces that the server did not make itself pods, ConfigMaps, Secrets, jobs and
// disruption budgets. CRDs, namespaces and users stay. For tests that share a Plane.
func (p *Plane) Reset(ctx context.Context) error {
	collections := []string{"/api/v1/nodes"}
	inSpace := []string{ // group and version, collection
		"/api/v1", "pods?gracePeriodSeconds=0",
		"/api/v1", "configmaps",
		"/api/v1", "secrets",
		"/apis/batch/v1", "cronjobs",
		"/apis/batch/v1", "jobs",
		"/apis/policy/v1", "poddisruptionbudgets",
	}
	crds, err := p.List(ctx, crdPath)
	if err != nil {
		return err
	}
	for _, crd := range crds {
		for _, all := range crdCollections(crd) {
			if crd.Text("spec", "scope") == "Namespaced" {
				inSpace = append(inSpace, path.Dir(all), path.Base(all))
			} else {
				collections = append(collections, all)
			}
		}
	}
	spaces, err := p.List(ctx, "/api/v1/namespaces")
	if err != nil {
		return err
	}
	for _, ns := range spaces {
		if strings.HasPrefix(ns.Name(), "kube-") || ns.Name() == "default" || ns.Name() == userNamespace {
			continue
		}
		for i := 0; i < len(inSpace); i += 2 {
			collections = append(collections, inSpace[i]+"/namespaces/"+ns.Name()+"/"+inSpace[i+1])
		}
	}
	for _, collection := range collections {
		if err := p.Delete(ctx, collection); err != nil {
			return err
		}
	}
	return nil
}
