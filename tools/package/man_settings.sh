#!/bin/sh
# aeris.conf(5) from redis.conf: each comment, and the settings below it with their defaults.
#
#     tools/package/man_settings.sh redis.conf VERSION
set -eu
cat <<HEAD
.TH AERIS.CONF 5 "" "aeris $2"
.SH NAME
aeris.conf \- settings of aeris\-server
.SH DESCRIPTION
A line is a name and its values. The values below are the defaults. CONFIG GET and CONFIG SET read and change them at run
time, CONFIG REWRITE writes them into the file.
HEAD
sed -e 's/\\/\\e/g' -e 's/-/\\-/g' "$1" | awk '
    # A comment of two words or fewer in a paragraph of its own is a title.
    function paragraph() {
        if (text == "") return
        if (!settings && split(text, words, " ") <= 3) { print ".SH " toupper(text) }
        else { print ".PP"; print text; if (settings) { print ".RS"; print ".nf"; printf "%s", lines; print ".fi"; print ".RE" } }
        text = ""; lines = ""; settings = 0
    }
    /^# / { if (settings) paragraph(); text = (text == "" ? "" : text " ") substr($0, 3); next }
    /^$/ { paragraph(); next }
    { settings = 1; lines = lines "\\fB" $0 "\\fR\n" }
    END { paragraph() }
' | sed -e "s/^'/\\\\\\&'/"
