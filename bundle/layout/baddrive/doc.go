// Package baddrive is a removable drive that misbehaves on command, for tests: a file system
// in memory, mounted through FUSE, that loses what was not synced when its power is cut, fails
// calls, fills up, lies about its size and about syncs, rots, is slow, and has the rules of
// FAT and exFAT. It writes down every call that reaches it. With nothing switched on it is an
// honest file system: names are durable after a sync of their folder, contents after a sync of
// their file.
//
// A power cut is a question to what was written down of the medium: [Drive.Crash] answers
// with the drive as it would be found, under a [Survival]. It exists on Linux only.
package baddrive
