package main

import "runtime/debug"

// version is that of the module, and the commit that it was built from where Go knows it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return versionOf(info)
}

func versionOf(info *debug.BuildInfo) string {
	text := info.Main.Version
	if text == "" {
		text = "(devel)"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			text += ", commit " + setting.Value[:min(len(setting.Value), 12)]
		}
	}
	return text + ", " + info.GoVersion
}
