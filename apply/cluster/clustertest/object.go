package clustertest

import (
	"encoding/json"
	"fmt"

	"pannier/bundle/objects"
)

// Object is an object of the API as JSON has it: numbers are float64.
type Object map[string]any

func decode(raw []byte) (Object, error) {
	var o Object
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("answer of the API server: %w", err)
	}
	return o, nil
}

// At is the value below the fields, nil where there is none.
func (o Object) At(fields ...string) any {
	var v any = map[string]any(o)
	for _, f := range fields {
		m, ok := v.(map[string]any)
		if !ok {
			if m, ok = v.(Object); !ok {
				return nil
			}
		}
		v = m[f]
	}
	return v
}

// Text is the text below the fields, "" where there is none.
func (o Object) Text(fields ...string) string {
	s, _ := o.At(fields...).(string)
	return s
}

// Int is the number below the fields, 0 where there is none.
func (o Object) Int(fields ...string) int64 {
	n, _ := o.At(fields...).(float64)
	return int64(n)
}

// Objects is the list below the fields, without what is no object.
func (o Object) Objects(fields ...string) []Object {
	var list []Object
	items, _ := o.At(fields...).([]any)
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			list = append(list, m)
		}
	}
	return list
}

// Name is metadata.name.
func (o Object) Name() string { return o.Text("metadata", "name") }

// Namespace is metadata.namespace.
func (o Object) Namespace() string { return o.Text("metadata", "namespace") }

// Generation is metadata.generation.
func (o Object) Generation() int64 { return o.Int("metadata", "generation") }

// Condition is the entry of status.conditions with this type, nil where there is none.
func (o Object) Condition(kind string) Object {
	for _, c := range o.Objects("status", "conditions") {
		if c.Text("type") == kind {
			return c
		}
	}
	return nil
}

// Decode reads the objects of YAML or JSON text: several documents, lists taken apart.
func Decode(text []byte) ([]Object, error) {
	docs, err := objects.Documents(text)
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, doc := range docs {
		var o Object
		if err := objects.Decode(doc, &o); err != nil {
			return nil, err
		}
		switch items := o.Objects("items"); {
		case items != nil:
			list = append(list, items...)
		case o.Text("kind") != "":
			list = append(list, o)
		}
	}
	return list, nil
}
