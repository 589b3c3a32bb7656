"use strict"
// One user, one moment at a time. The server holds everything that matters; this page shows it and sends verdicts.

const token = new URLSearchParams(location.search).get("token") ?? ""
const element = id => document.getElementById(id)
const video = element("clip")
const GLYPHS = {keep: "✓", drop: "✕", unsure: "?", missed: "+"}
const WORDS = {keep: "kept", drop: "dropped", unsure: "unsure", missed: "added"}
const KINDS = {
  chosen: "chosen as a highlight", near: "a near miss", uncertain: "the model is uncertain", range: "drawn at random",
  other: "not chosen", added: "added by hand"}

let state = null           // the server's last answer
let at = {recording: 0, number: null}
let trim = {start: 0, end: 0}
let extra = {}             // recording: candidates to ask about besides the server's
let amounts = {}           // recording: how many clips are wanted
let free = false           // play on after the end of the moment
let busy = false
const curves = {}
const whys = {}            // "recording/number": explanations that the state lacks
const clips = new Map()    // "recording/number": promise of {url} or {error}

// --- the server

async function ask(path, values = {}) {
  const query = new URLSearchParams({...values, token})
  let answer
  try { answer = await fetch(`${path}?${query}`, {cache: "no-store"}) }
  catch { throw new Error("The review has stopped. Every verdict so far is saved; run the command again to resume.") }
  if (answer.ok) return answer
  const text = await answer.text()
  let line = text.trim()
  try { line = JSON.parse(text).error ?? line } catch { /* a plain line */ }
  throw new Error(line || `The server answered ${answer.status}.`)
}

const askJson = async (path, values) => (await ask(path, values)).json()

function notice(line) {
  element("notice").textContent = line ?? ""
  element("notice").hidden = !line
}

// --- small things

function clock(seconds, digits = 0) {
  const scale = 10 ** digits
  const whole = Math.round(seconds * scale) / scale
  const minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600)
  const rest = (whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`
}

function remember(name, value) {
  try { localStorage.setItem(`review ${name}`, value) } catch { /* a sandboxed frame */ }
}

function remembered(name) {
  try { return localStorage.getItem(`review ${name}`) } catch { return null }
}

// Another review may be served at the same port later, and has other moments.
const storedAs = name => `review ${name} ${token}`

const recordingNow = () => state.recordings[at.recording]
const momentNow = () => recordingNow().candidates[at.number]
const isGone = one => one.kind === "added" && !one.pick
const queueOf = recording => [...new Set([...state.recordings[recording].asked, ...(extra[recording] ?? [])])]
const todoOf = recording => queueOf(recording).filter(number => !state.recordings[recording].candidates[number].pick)
const place = (seconds, from, to) => 100 * Math.min(1, Math.max(0, (seconds - from) / (to - from)))

function make(kind, text, properties = {}) {
  const made = Object.assign(document.createElement(kind), properties)
  if (text != null) made.textContent = text
  return made
}

function showTicks(box, ticks) {
  box.replaceChildren(...ticks.map(tick => {
    const shown = make("span", tick.text, {className: tick.at > 96 ? "last" : ""})
    shown.style.left = `${tick.at}%`
    return shown
  }))
}

// --- the evening

function wantedOf(recording) {
  const candidates = state.recordings[recording].candidates
  const numbers = candidates.map((_, number) => number)
  const kept = numbers.filter(number => ["keep", "missed"].includes(candidates[number].pick?.verdict))
  const open = numbers.filter(number => !candidates[number].pick && candidates[number].probability !== null)
  open.sort((one, other) => candidates[other].probability - candidates[one].probability)
  return {kept, open: open.slice(0, Math.max(0, amounts[recording] - kept.length))}
}

function showWanted() {
  const {duration, candidates} = recordingNow()
  const {kept, open} = wantedOf(at.recording)
  const bars = [...open, ...kept].map(number => {
    const one = candidates[number], bar = document.createElementNS("http://www.w3.org/2000/svg", "rect")
    const start = one.pick?.start ?? one.start, end = one.pick?.end ?? one.end
    bar.setAttribute("x", 10 * place(start, 0, duration))
    bar.setAttribute("width", Math.max(3, 1000 * (end - start) / duration))
    bar.setAttribute("height", 100)
    if (one.pick) bar.setAttribute("class", "kept")
    return bar
  })
  element("wanted").replaceChildren(...bars)
  const count = kept.length + open.length, least = candidates[open.at(-1)]?.probability.toFixed(2)
  const unseen = open.length ? `, ${open.length} not looked at (probability ${least} or more)` : ""
  element("amounts").textContent = `${count} clip${count === 1 ? "" : "s"}: ${kept.length} kept${unseen}`
  const queue = new Set(queueOf(at.recording)), new_ = open.filter(number => !queue.has(number))
  element("askwanted").hidden = !new_.length
  element("askwanted").textContent = `Ask about ${new_.length} of them`
}

function showPins() {
  const {duration, candidates} = recordingNow(), queue = new Set(queueOf(at.recording))
  const pins = [], others = []
  candidates.forEach((one, number) => {
    if (isGone(one)) return
    const left = place((one.start + one.end) / 2, 0, duration)
    if (!queue.has(number) && !one.pick && number !== at.number) {
      others.push(`M${(10 * left).toFixed(1)},100 V${100 - Math.max(8, 100 * (one.probability ?? 0)).toFixed(1)}`)
      return
    }
    const verdict = one.pick?.verdict
    const pin = make("button", null, {type: "button", className: "pin", tabIndex: -1})
    pin.title = `${clock(one.start)}, ${verdict ? WORDS[verdict] : "to do"}`
    pin.setAttribute("aria-label", pin.title)
    pin.style.left = `clamp(.65rem, ${left}%, 100% - .65rem)`
    if (verdict) Object.assign(pin.dataset, {verdict, glyph: GLYPHS[verdict]})
    pin.classList.toggle("current", number === at.number)
    pin.addEventListener("click", () => show(number))
    pins.push(pin)
  })
  element("pins").replaceChildren(...pins)
  element("others").setAttribute("d", others.join(" "))
}

function showCounts() {
  const counts = {keep: 0, missed: 0, drop: 0, unsure: 0}
  let todo = 0
  state.recordings.forEach((recording, index) => {
    for (const one of recording.candidates) if (one.pick) counts[one.pick.verdict]++
    todo += todoOf(index).length
  })
  const entries = [["to do", todo, ""], ["kept", counts.keep, "is-keep"], ["dropped", counts.drop, "is-drop"],
    ["unsure", counts.unsure, "is-unsure"], ["added", counts.missed, "is-missed"]]
  element("counts").replaceChildren(...entries.filter(([word, count]) => count || !["unsure", "added"].includes(word))
    .map(([word, count, kind]) => {
      const item = make("li", null, {className: kind})
      item.append(make("b", count), ` ${word}`)
      return item
    }))
  return {...counts, todo}
}

async function showRecording() {
  const recording = at.recording, {name, duration, threshold, candidates} = recordingNow()
  element("name").textContent = name
  document.title = `Review of ${name}`
  element("which").value = recording
  const likely = candidates.filter(one => one.kind === "chosen").length
  amounts[recording] ??= Math.max(likely, wantedOf(recording).kept.length)
  element("amount").max = Math.max(1, candidates.length)
  element("amount").value = amounts[recording]
  const line = element("threshold")
  line.style.display = threshold === null ? "none" : ""
  for (const side of ["y1", "y2"]) line.setAttribute(side, 100 - 100 * (threshold ?? 0))
  curves[recording] ??= askJson(`curve/${recording}`)
  const curve = await curves[recording]
  if (recording !== at.recording) return
  element("curve").setAttribute("d", curve.path)
  showTicks(element("ticks"), curve.ticks)
}

// --- the moment

function whyLine([both, withoutVoice, withoutGame]) {
  const voice = both - withoutVoice, game = both - withoutGame, least = Math.max(.05, both / 5)
  const unclear = Math.max(both, withoutVoice, withoutGame) < .5
  if (unclear && voice < least && game < least) return "Why: neither track by itself is clear"
  if (voice < least && game < least) return "Why: voice and game, either alone would do"
  if (voice > 2 * game && game < least) return "Why: the voice"
  if (game > 2 * voice && voice < least) return "Why: the game"
  return "Why: voice and game together"
}

function showWhy(why) {
  const box = element("why")
  box.replaceChildren()
  if (!why || recordingNow().mixed) return
  box.append(make("p", whyLine(why)))
  const rows = [["both tracks", why[0], ""], ["without the voice", why[1], "less"], ["without the game", why[2], "less"]]
  for (const [word, value, kind] of rows) {
    const bar = make("i", null, {className: kind}), frame = make("span")
    bar.style.width = `${100 * value}%`
    frame.append(bar)
    box.append(make("span", word, {className: "soft"}), frame, make("span", value.toFixed(2)))
  }
  const taste = "By the network alone, without your taste."
  if (recordingNow().taste) box.append(make("p", taste, {className: "soft"}))
}

// Moments that were not chosen are explained once their clip is there, since both need the CPU.
async function fetchWhy() {
  const key = `${at.recording}/${at.number}`, one = momentNow()
  if (one.why || one.probability === null || recordingNow().mixed) return
  try { whys[key] ??= (await askJson(`why/${key}`)).why }
  catch { return }  // the model or the recording is gone
  if (key === `${at.recording}/${at.number}`) showWhy(whys[key])
}

function showFacts() {
  const one = momentNow(), queue = queueOf(at.recording), turn = queue.indexOf(at.number)
  const reason = KINDS[recordingNow().reasons[at.number] ?? one.kind]
  element("place").textContent = turn < 0 ? reason : `Moment ${turn + 1} of ${queue.length}: ${reason}`
  element("when").textContent = `${clock(trim.start, 1)} – ${clock(trim.end, 1)}`
  const sure = one.probability === null ? "" : `, probability ${one.probability.toFixed(2)}`
  element("facts").textContent = `${(trim.end - trim.start).toFixed(1)} s${sure}`
  const verdict = one.pick?.verdict
  element("verdict").className = verdict ? `is-${verdict}` : "soft"
  element("verdict").textContent = verdict ? `${GLYPHS[verdict]} ${WORDS[verdict]}` : ""
  for (const name of ["keep", "drop", "unsure"])
    element(name).setAttribute("aria-pressed", verdict === name || (name === "keep" && verdict === "missed"))
}

function showTrim() {
  const {from, to} = momentNow()
  const left = place(trim.start, from, to), right = place(trim.end, from, to)
  element("start").style.left = `${left}%`
  element("end").style.left = `${right}%`
  element("before").style.cssText = `left: 0; width: ${left}%`
  element("after").style.cssText = `left: ${right}%; right: 0`
  for (const side of ["start", "end"]) {
    const handle = element(side)
    handle.setAttribute("aria-valuemin", Math.round(from))
    handle.setAttribute("aria-valuemax", Math.round(to))
    handle.setAttribute("aria-valuenow", trim[side].toFixed(1))
    handle.setAttribute("aria-valuetext", clock(trim[side], 1))
  }
  showFacts()
}

async function showPicture() {
  const key = `${at.recording}/${at.number}`
  try {
    const picture = await askJson(`picture/${key}`)
    if (key !== `${at.recording}/${at.number}`) return
    const names = picture.pictures.length > 1 ? ["voice", "game"] : ["voice and game, mixed"]
    element("pictures").replaceChildren(...picture.pictures.map((source, index) => {
      const figure = make("figure")
      figure.append(make("img", null, {src: source, alt: `Log-mel spectrogram: ${names[index]}`}),
        make("figcaption", names[index]))
      return figure
    }))
    element("steps").setAttribute("d", picture.curve)
    showTicks(element("soundticks"), picture.ticks)
  } catch (error) {
    if (key !== `${at.recording}/${at.number}`) return
    element("pictures").replaceChildren(make("figure"))
    message(error.message)
  }
}

// --- clips

function fetchClip(recording, number, next = []) {
  const key = `${recording}/${number}`
  if (!clips.has(key)) {
    const fetched = ask(`preview/${key}`, {next: next.join(",")}).then(async answer => {
      const blob = await answer.blob()
      return {url: URL.createObjectURL(blob), picture: blob.type.startsWith("video")}
    }).catch(error => {
      clips.delete(key)
      return {error: error.message}
    })
    clips.set(key, fetched)
  }
  for (const old of [...clips.keys()].slice(0, -12)) {
    clips.get(old).then(clip => clip.url && URL.revokeObjectURL(clip.url))
    clips.delete(old)
  }
  return clips.get(key)
}

function message(line) { element("message").textContent = line ?? "" }

function upcoming(count) {
  const todo = todoOf(at.recording).filter(number => number !== at.number)
  const queue = queueOf(at.recording), turn = queue.indexOf(at.number)
  return [...todo.filter(number => queue.indexOf(number) > turn), ...todo].slice(0, count)
}

async function showClip() {
  const {recording, number} = at
  video.pause()
  video.removeAttribute("src")
  video.load()  // or the last frame of the clip before stays
  const waiting = setTimeout(() => message("Cutting the clip …"), 400)
  const clip = await fetchClip(recording, number, upcoming(3))
  clearTimeout(waiting)
  if (recording !== at.recording || number !== at.number) return
  message(clip.error)
  element("moment").classList.toggle("silent", Boolean(clip.error) || !clip.picture)
  if (clip.error) return
  video.src = clip.url
  video.playbackRate = Number(element("speed").value)
  seek(trim.start)
  if (element("autoplay").checked) play()
  fetchWhy()
  for (const following of upcoming(2)) fetchClip(recording, following)
}

const playhead = () => momentNow().from + video.currentTime

function seek(seconds) {
  const {from, to} = momentNow()
  const target = Math.min(to, Math.max(from, seconds))
  free = target < trim.start - .05 || target >= trim.end - .05
  video.currentTime = target - from
}

async function play() {
  if (!video.getAttribute("src")) return
  if (playhead() >= trim.end - .05 && !free) seek(trim.start)
  try {
    await video.play()
    message()
  } catch (error) {
    if (error.name === "NotAllowedError") message("Press space, or tap here, to play.")
  }
}

function togglePlay() {
  if (video.paused) play()
  else video.pause()
}

function setSpeed(value) {
  element("speed").value = String(value)
  video.playbackRate = video.defaultPlaybackRate = Number(value)
  remember("speed", value)
}

function followPlayhead() {
  requestAnimationFrame(followPlayhead)
  if (!state || at.number === null || !momentNow()) return
  const {from, to} = momentNow(), now = playhead()
  element("head").style.left = `${place(now, from, to)}%`
  if (!video.paused && !free && now >= trim.end) {
    video.pause()
    video.currentTime = trim.end - from
  }
}

// --- going from moment to moment

function show(number) {
  at.number = number
  const one = momentNow()
  trim = {start: one.pick?.start ?? one.start, end: one.pick?.end ?? one.end}
  free = false
  showEnd(false)
  element("now").style.left = `${place((one.start + one.end) / 2, 0, recordingNow().duration)}%`
  refresh()
  showWhy(one.why ?? whys[`${at.recording}/${number}`])
  showPicture()
  showClip()
  try { sessionStorage.setItem(storedAs("at"), JSON.stringify(at)) } catch { /* a sandboxed frame */ }
}

function refresh() {
  showCounts()
  showPins()
  showWanted()
  showTrim()
  element("undo").disabled = !undoable().length
}

function goNext() {
  const queue = queueOf(at.recording), turn = queue.indexOf(at.number)
  const todo = todoOf(at.recording).filter(number => number !== at.number)
  const next = todo.find(number => queue.indexOf(number) > turn) ?? todo[0]
  if (next !== undefined) return show(next)
  const other = state.recordings.findIndex((_, recording) => recording !== at.recording && todoOf(recording).length)
  if (other >= 0) return showOther(other)
  showEnd(true)
}

function showOther(recording) {
  at = {recording, number: null}
  const number = todoOf(recording)[0] ?? queueOf(recording)[0] ?? state.recordings[recording].candidates.findIndex(one => !isGone(one))
  showRecording()
  if (number === undefined || number < 0) showNothing()
  else show(number)
}

function showNothing() {
  showEnd(true)
  element("endtitle").textContent = "Nothing was found"
  element("endtext").textContent = "Drag over the curve to add missed moments."
}

function undoable() {
  try { return JSON.parse(sessionStorage.getItem(storedAs("done")) ?? "[]") } catch { return undoable.kept ?? [] }
}

function keepUndoable(list) {
  undoable.kept = list
  try { sessionStorage.setItem(storedAs("done"), JSON.stringify(list.slice(-200))) } catch { /* a sandboxed frame */ }
}

// --- verdicts

async function once(work) {
  if (busy) return
  busy = true
  element("verdicts").classList.add("busy")
  try {
    await work()
    notice()
  } catch (error) { notice(error.message) }
  finally {
    busy = false
    element("verdicts").classList.remove("busy")
  }
}

async function send(verdict) {
  const {recording, number} = at
  state = await askJson(`verdict/${recording}/${number}`, {verdict, start: trim.start, end: trim.end})
  keepUndoable([...undoable(), [recording, number]])
}

const judge = verdict => once(async () => {
  if (at.number === null || !element("endpanel").hidden) return
  await send(verdict)
  goNext()
  if (!element("endpanel").hidden) refresh()
})

const undo = () => busy ? setTimeout(undo, 50) : once(async () => {
  const done = undoable(), last = done.pop()
  if (!last) return
  const [recording, number] = last
  state = await askJson(`undo/${recording}/${number}`)
  keepUndoable(done)
  if (state.nothing) throw new Error(state.nothing)
  if (recording !== at.recording) {
    at = {recording, number}
    showRecording()
  }
  if (isGone(state.recordings[recording].candidates[number])) goNext()
  else show(number)
})

const addMissed = (start, end) => once(async () => {
  const {duration} = recordingNow()
  const answer = await askJson(`add/${at.recording}`, {start: Math.max(0, start), end: Math.min(duration, end)})
  state = answer
  keepUndoable([...undoable(), [at.recording, answer.number]])
  show(answer.number)
})

const _HALF = 5  // seconds on both sides of the playhead

function addHere() {
  if (at.number === null) return
  const now = video.getAttribute("src") ? playhead() : (trim.start + trim.end) / 2
  addMissed(now - _HALF, now + _HALF)
}

function setTrim(side, seconds) {
  const {from, to} = momentNow(), least = .2
  if (side === "start") trim.start = Math.min(Math.max(from, seconds), trim.end - least)
  else trim.end = Math.max(Math.min(to, seconds), trim.start + least)
  showTrim()
}

// A moment that has a verdict is saved again with its new ends.
const saveTrim = () => {
  const pick = momentNow().pick
  if (!pick || (pick.start === trim.start && pick.end === trim.end)) return
  once(async () => {
    await send(pick.verdict === "missed" ? "keep" : pick.verdict)
    refresh()
  })
}

function trimHere(side) {
  setTrim(side, playhead())
  saveTrim()
}

// --- the end

function showEnd(shown) {
  element("endpanel").hidden = !shown
  document.querySelector("main").classList.toggle("ended", shown)
  if (!shown) return
  video.pause()
  const {keep, missed, drop, unsure, todo} = showCounts()
  const words = [`${keep + missed} kept`, `${drop} dropped`, ...(unsure ? [`${unsure} unsure`] : [])]
  element("endtitle").textContent = todo ? "Enough for now" : "That was the last one"
  element("endtext").textContent = `${words.join(", ")}. Everything is saved.`
  element("again").hidden = !recordingNow().candidates.length
  element("endtitle").focus()
  showLearning("learning").catch(error => notice(error.message))
}

const askMore = () => once(async () => {
  const before = queueOf(at.recording).length
  state = await askJson(`more/${at.recording}`)
  if (queueOf(at.recording).length === before) throw new Error("There are no more moments to ask about.")
  goNext()
})

// --- learning

async function showLearning(path) {
  const {running, share, words, sentence, error} = await askJson(path)
  if (running === undefined) return  // nothing to learn with
  const {keep, missed} = showCounts()
  element("learn").hidden = running
  element("learn").disabled = !(keep + missed)
  element("learn").title = keep + missed ? "" : "Keep or add a moment first"
  element("share").hidden = !running
  element("share").value = share
  element("close").disabled = running
  const line = running ? `${words || "starting"} …` : error || sentence
  element("learned").hidden = !line
  element("learned").textContent = line
  if (running) setTimeout(() => showLearning("learning").catch(error => notice(error.message)), 700)
}

const closeReview = () => once(async () => {
  await ask("close")
  element("endtitle").textContent = "Closed"
  element("endtext").textContent = "You can close this page."
  for (const button of document.querySelectorAll("button, select, input")) button.disabled = true
})

// --- mouse, touch and keys

function follow(handle, started, moved, ended) {
  handle.addEventListener("pointerdown", event => {
    if (event.button) return
    event.preventDefault()
    if (handle.matches("button")) event.stopPropagation()
    handle.setPointerCapture(event.pointerId)
    started?.(event)
    const move = event => moved(event)
    const stop = event => {
      handle.removeEventListener("pointermove", move)
      handle.removeEventListener("pointerup", stop)
      handle.removeEventListener("pointercancel", stop)
      ended?.(event)
    }
    handle.addEventListener("pointermove", move)
    handle.addEventListener("pointerup", stop)
    handle.addEventListener("pointercancel", stop)
  })
}

function secondsIn(box, event, from, to) {
  const {left, width} = box.getBoundingClientRect()
  return from + (to - from) * Math.min(1, Math.max(0, (event.clientX - left) / width))
}

const secondsOfSound = event => secondsIn(element("tracks"), event, momentNow().from, momentNow().to)

for (const side of ["start", "end"]) {
  follow(element(side), null, event => setTrim(side, secondsOfSound(event)), saveTrim)
  element(side).addEventListener("keydown", event => {
    const step = {ArrowLeft: -.1, ArrowRight: .1}[event.key]
    if (!step) return
    event.preventDefault()
    event.stopPropagation()
    setTrim(side, trim[side] + step)
    saveTrim()
  })
}

follow(element("tracks"), event => seek(secondsOfSound(event)), event => seek(secondsOfSound(event)))

let dragged = null  // start and end of what is being drawn on the curve

function showDrawn() {
  const {duration} = recordingNow(), box = element("drawn")
  box.hidden = dragged === null || Math.abs(dragged.x - dragged.x0) < 6
  if (box.hidden) return
  const [start, end] = [dragged.start, dragged.end].sort((one, other) => one - other)
  box.style.left = `${place(start, 0, duration)}%`
  box.style.width = `${place(end, 0, duration) - place(start, 0, duration)}%`
}

const secondsOfEvening = event => secondsIn(element("plot"), event, 0, recordingNow().duration)

function goNear(seconds) {
  const {duration, candidates} = recordingNow()
  const reach = 14 * duration / element("plot").clientWidth
  const near = candidates.map((one, number) => ({number, away: Math.abs((one.start + one.end) / 2 - seconds), one}))
    .filter(({away, one}) => !isGone(one) && away <= Math.max(reach, (one.end - one.start) / 2))
    .sort((one, other) => one.away - other.away)
  if (near.length) show(near[0].number)
}

follow(element("plot"), event => {
  const start = secondsOfEvening(event)
  dragged = {start, end: start, x0: event.clientX, x: event.clientX}
}, event => {
  dragged = {...dragged, end: secondsOfEvening(event), x: event.clientX}
  showDrawn()
}, event => {
  const {start, end, x, x0} = dragged
  dragged = null
  showDrawn()
  if (event.type === "pointercancel") return
  if (Math.abs(x - x0) < 6) goNear(start)
  else addMissed(Math.min(start, end), Math.max(start, end))
})

const KEYS = {
  ArrowUp: () => judge("keep"), k: () => judge("keep"), ArrowDown: () => judge("drop"), x: () => judge("drop"),
  u: () => judge("unsure"), ArrowLeft: undo, ArrowRight: goNext, " ": togglePlay, "[": () => trimHere("start"),
  "]": () => trimHere("end"), ",": () => seek(playhead() - .5), ".": () => seek(playhead() + .5), a: addHere,
  1: () => setSpeed(1), 2: () => setSpeed(1.5), 3: () => setSpeed(2), 4: () => setSpeed(3),
  "?": () => element("help").showModal()}

const ANYWHERE = new Set(["ArrowLeft", "?"])  // these work at the end, too

// If a layout lacks the character, the key at its position on a US keyboard counts.
function nameOf(event) {
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key
  if (KEYS[name]) return name
  const [, letter, digit] = event.code.match(/^(?:Key([A-Z])|Digit([1-4]))$/) ?? []
  if (letter) return /[^\x00-\x7f]/.test(name) ? letter.toLowerCase() : name
  return digit ?? {BracketLeft: "[", BracketRight: "]"}[event.code] ?? name
}

document.addEventListener("keydown", event => {
  const modified = (event.ctrlKey || event.altKey) && !event.getModifierState("AltGraph")
  if (modified || event.metaKey || element("help").open || !state) return
  const name = nameOf(event)
  const target = event.target
  if (target.matches("input[type=range], select") && !"kxu".includes(name)) return
  if (target.matches("button, input, a") && [" ", "Enter"].includes(name)) return
  if (!KEYS[name] || (!element("endpanel").hidden && !ANYWHERE.has(name))) return
  event.preventDefault()
  if (!event.repeat || ",.".includes(name)) KEYS[name]()
})

const CLICKS = {
  keep: () => judge("keep"), drop: () => judge("drop"), unsure: () => judge("unsure"), undo, next: goNext,
  play: togglePlay, clip: togglePlay, message: togglePlay, back: () => seek(playhead() - .5),
  on: () => seek(playhead() + .5), starthere: () => trimHere("start"), endhere: () => trimHere("end"), add: addHere,
  keys: () => element("help").showModal(), enough: () => at.number !== null && showEnd(element("endpanel").hidden),
  again: () => show(at.number ?? 0), more: askMore, close: closeReview,
  learn: () => once(() => showLearning("learn")),
  askwanted: () => {
    extra[at.recording] = [...(extra[at.recording] ?? []), ...wantedOf(at.recording).open]
    refresh()
  }}
for (const [id, work] of Object.entries(CLICKS)) element(id).addEventListener("click", event => {
  work()
  if (event.detail && event.currentTarget.matches("button")) event.currentTarget.blur()  // so that space plays again
})

element("speed").addEventListener("change", event => setSpeed(event.target.value))
element("autoplay").addEventListener("change", event => remember("autoplay", event.target.checked))
element("amount").addEventListener("input", event => {
  amounts[at.recording] = Number(event.target.value)
  showWanted()
})
element("which").addEventListener("change", event => {
  showOther(Number(event.target.value))
  event.target.blur()
})
for (const [event, word] of [["play", "Pause"], ["pause", "Play"]])
  video.addEventListener(event, () => { element("playing").textContent = word })

// Another tab may have changed a verdict meanwhile.
document.addEventListener("visibilitychange", async () => {
  if (document.hidden || !state || busy) return
  try {
    state = await askJson("state")
    if (at.number !== null) refresh()
  } catch (error) { notice(error.message) }
})

async function start() {
  element("autoplay").checked = remembered("autoplay") !== "false"
  setSpeed(remembered("speed") ?? 1)
  try { state = await askJson("state") }
  catch (error) { return notice(error.message) }
  element("which").replaceChildren(...state.recordings.map(({name}, index) => make("option", name, {value: index})))
  document.querySelector(".which").hidden = state.recordings.length < 2
  document.querySelector("h1").classList.toggle("hidden", state.recordings.length > 1)
  let last = null
  try { last = JSON.parse(sessionStorage.getItem(storedAs("at"))) } catch { /* a sandboxed frame */ }
  const known = last && state.recordings[last.recording]?.candidates[last.number]
  if (known && !isGone(known) && !known.pick) {
    at = last
    showRecording()
    show(last.number)
  } else {
    const first = state.recordings.findIndex((_, recording) => todoOf(recording).length)
    showOther(Math.max(0, first))
    if (first < 0 && at.number !== null) showEnd(true)
  }
  followPlayhead()
}

start()
