package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
)

// userNamespace holds the service accounts that users are.
const userNamespace = "clustertest"

// Rule is a permission, in the words of RBAC.
type Rule struct {
	// Namespace is where it holds; "" is everywhere, and the only one for kinds without
	// namespace.
	Namespace string
	APIGroups []string // "" is the core group; nil is the core group alone
	Resources []string
	Names     []string // of objects; nil is all
	Verbs     []string
}

// User is somebody whose permissions a test decides. Its Client speaks as that user.
type User struct {
	*Client
	Kubeconfig string

	admin  *Client
	name   string
	marks  int
	spaces map[string]bool // where the user has a role
}

// CreateUser makes a user with these permissions and none beside them but those of everybody
// who is logged in: to ask for /version and for their own permissions. The API knows the user
// as system:serviceaccount:clustertest:NAME. Users survive a restart of the plane.
func (p *Plane) CreateUser(ctx context.Context, name string, rules ...Rule) (*User, error) {
	if err := p.ensureNamespace(ctx, userNamespace); err != nil {
		return nil, err
	}
	if _, err := p.put(ctx, Object{
		"apiVersion": "v1", "kind": "ServiceAccount",
		"metadata": Object{"name": name, "namespace": userNamespace},
	}); err != nil {
		return nil, err
	}
	answer, err := p.object(ctx, http.MethodPost,
		"/api/v1/namespaces/"+userNamespace+"/serviceaccounts/"+name+"/token", "application/json",
		Object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": Object{"expirationSeconds": 86400}})
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(p.dir, "kubeconfig-"+name)
	if err := writeKubeconfig(p.Kubeconfig, kubeconfig, name, answer.Text("status", "token")); err != nil {
		return nil, err
	}
	client, err := Connect(kubeconfig)
	if err != nil {
		return nil, err
	}
	u := &User{Client: client, Kubeconfig: kubeconfig, admin: p.Client, name: name, spaces: map[string]bool{"": true}}
	return u, u.Allow(ctx, rules...)
}

// writeKubeconfig writes admin's kubeconfig for another user.
func writeKubeconfig(from, to, name, token string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var c config
	if err := json.Unmarshal(raw, &c); err != nil {
		return err
	}
	c.Users[0].Name, c.Users[0].User.Token = name, token
	c.Contexts[0].Name, c.Contexts[0].Context.User, c.CurrentContext = name, name, name
	if raw, err = json.MarshalIndent(c, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o600)
}

// Allow gives the user these permissions in place of those it had, and returns when the
// server acts on it.
func (u *User) Allow(ctx context.Context, rules ...Rule) error {
	// The server learns of roles a moment after they are written. So each carries a
	// permission that means nothing and stands in this version of it alone; when the
	// server grants that, it grants the others.
	u.marks++
	mark := fmt.Sprintf("mark-%d", u.marks)
	granted := map[string][]Object{}
	for _, r := range rules {
		u.spaces[r.Namespace] = true
		granted[r.Namespace] = append(granted[r.Namespace], r.object())
	}
	for ns := range u.spaces {
		marked := append(granted[ns], Rule{APIGroups: []string{"clustertest.invalid"}, Resources: []string{mark}, Verbs: []string{"get"}}.object())
		if err := u.bind(ctx, ns, marked); err != nil {
			return err
		}
	}
	for ns := range u.spaces {
		if err := poll(ctx, func() (bool, error) { return u.Can(ctx, "get", "clustertest.invalid", mark, ns) }); err != nil {
			return fmt.Errorf("permissions of %s: %w", u.name, err)
		}
	}
	return nil
}

// bind writes the role of the user, for a namespace or "" for everywhere.
func (u *User) bind(ctx context.Context, ns string, rules []Object) error {
	const version = "rbac.authorization.k8s.io/v1"
	meta, kind := Object{"name": "clustertest-" + u.name}, "ClusterRole"
	if ns != "" {
		if err := u.admin.ensureNamespace(ctx, ns); err != nil {
			return err
		}
		meta["namespace"], kind = ns, "Role"
	}
	for _, o := range []Object{
		{"apiVersion": version, "kind": kind, "metadata": meta, "rules": rules},
		{
			"apiVersion": version, "kind": kind + "Binding", "metadata": meta,
			"roleRef":  Object{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": meta["name"]},
			"subjects": []Object{{"kind": "ServiceAccount", "name": u.name, "namespace": userNamespace}},
		},
	} {
		if _, err := u.admin.put(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// Can asks the server whether the user may; ns "" is everywhere.
func (c *Client) Can(ctx context.Context, verb, group, resource, ns string) (bool, error) {
	answer, err := c.object(ctx, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json",
		Object{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": Object{
			"resourceAttributes": Object{"verb": verb, "group": group, "resource": resource, "namespace": ns},
		}})
	return answer.At("status", "allowed") == true, err
}

func (r Rule) object() Object {
	groups := r.APIGroups
	if groups == nil {
		groups = []string{""}
	}
	o := Object{"apiGroups": groups, "resources": r.Resources, "verbs": r.Verbs}
	if r.Names != nil {
		o["resourceNames"] = r.Names
	}
	return o
}
