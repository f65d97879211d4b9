package encode

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"unicode/utf8"
)

// replaced is what encoding/json writes in place of each byte of a text that is not UTF-8. It writes a U+FFFD that was there as
// it is, so that else only [json.RawMessage] brings this spelling.
const replaced = `\ufffd`

// losesText tells whether a value has texts that are not UTF-8, which are not the same any more in what encoding/json made of it.
func losesText(value any, encoded []byte) bool {
	return bytes.Contains(encoded, []byte(replaced)) && hasInvalidText(reflect.ValueOf(value))
}

// hasInvalidText goes through what encoding/json encodes of a value, and has encoded, so that there is no circle in it.
func hasInvalidText(v reflect.Value) bool {
	if invalid, known := marshalsInvalidText(v); known {
		return invalid
	}
	switch v.Kind() {
	case reflect.String:
		return !utf8.ValidString(v.String())
	case reflect.Interface, reflect.Pointer:
		return hasInvalidText(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if hasInvalidText(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for entry := v.MapRange(); entry.Next(); {
			if hasInvalidName(entry.Key()) || hasInvalidText(entry.Value()) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if (field.IsExported() || field.Anonymous) && field.Tag.Get("json") != "-" && hasInvalidText(v.Field(i)) {
				return true
			}
		}
	}
	return false
}

// hasInvalidName is hasInvalidText for the key of a map, of which a string counts as it is, whatever methods it has.
func hasInvalidName(key reflect.Value) bool {
	if key.Kind() == reflect.String {
		return !utf8.ValidString(key.String())
	}
	return hasInvalidText(key)
}

// marshalsInvalidText asks a value that encodes itself. One that gives JSON used encoding/json for that, in all likelihood; but
// [json.RawMessage] is the text of somebody else.
func marshalsInvalidText(v reflect.Value) (invalid, known bool) {
	if !v.IsValid() || !v.CanInterface() || v.Kind() == reflect.Pointer && v.IsNil() {
		return false, false
	}
	value := v.Interface()
	if v.Kind() != reflect.Pointer && v.CanAddr() { // its methods are the pointer's too
		value = v.Addr().Interface()
	}
	switch value := value.(type) {
	case json.RawMessage, *json.RawMessage:
		return false, true
	case json.Marshaler:
		text, err := value.MarshalJSON()
		return err == nil && hasReplaced(text), true
	case encoding.TextMarshaler:
		text, err := value.MarshalText()
		return err == nil && !utf8.Valid(text), true
	}
	return false, false
}

// hasReplaced tells whether a JSON text has that escape, and not only a backslash before the same letters.
func hasReplaced(text []byte) bool {
	for {
		before, after, found := bytes.Cut(text, []byte(replaced))
		if !found {
			return false
		}
		if (len(before)-len(bytes.TrimRight(before, `\`)))%2 == 0 {
			return true
		}
		text = after
	}
}
