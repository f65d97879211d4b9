// Package hostile has tests alone: of stores on homeservers that fail, break off, or attack.
package hostile
