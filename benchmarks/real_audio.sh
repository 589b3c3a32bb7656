#!/usr/bin/env bash
# Trains on real recordings through the command line, and evaluates on streamers that are not in the training set.
#
#     benchmarks/real_audio.sh RECORDINGS LABELS HELD_OUT OUT
#
# RECORDINGS: folder of two-track recordings. LABELS: their labels.csv. HELD_OUT: extended regular expression for the
# names of the recordings to evaluate on. OUT: new folder.
# Needs the package installed. Takes about an hour on two cores for twelve hours of recordings.
set -euo pipefail
[[ $# == 4 ]] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
recordings=$(realpath "$1") labels=$(realpath "$2") held_out=$3 out=$4

mkdir -p "$out"/recordings/{train,test}
for file in "$recordings"/*; do
    side=train; [[ $(basename "$file") =~ $held_out ]] && side=test
    ln -s "$file" "$out/recordings/$side/"
done
{ head -n 1 "$labels"; tail -n +2 "$labels" | grep -Ev "$held_out"; } > "$out/train.csv"
{ head -n 1 "$labels"; tail -n +2 "$labels" | grep -E "$held_out"; } > "$out/test.csv"

for side in train test; do
    highlight-sense prepare "$out/recordings/$side" --labels "$out/$side.csv" --unlabelled negative -o "$out/clips/$side"
done
highlight-sense train "$out/clips/train" -o "$out/run" --batch-size 32
highlight-sense evaluate "$out/run/best.pt" "$out/clips/test" -o "$out/evaluation"
