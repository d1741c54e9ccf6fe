/* The evidence of one cell, beside the map. */
const panel = by('#panel');
let opener = null;

/* changes the page without moving the cell that the reader looks at */
function steady(cell, change) {
  const before = cell && cell.getBoundingClientRect().top;
  change();
  if (cell) scrollBy({top: cell.getBoundingClientRect().top - before, behavior: 'instant'});
}

function close() {
  const cell = by('.chosen') || opener;
  steady(cell, () => {
    panel.hidden = true;
    by('.shell').classList.remove('with-panel');
  });
  all('.chosen').forEach((one) => one.classList.remove('chosen'));
  history.replaceState(null, '', location.pathname + location.search);
  const back = opener && opener.isConnected ? opener : cell;
  if (back) back.focus({preventScroll: true});
  const shown = by('.tip');
  if (shown) shown.hidden = true;
}

/* an outcome that breaks something held its expectation, too: that is no good news */
const BREAKS = ['fails', 'hangs', 'lost', 'wrong', 'leaks', 'mustnot'];
function expectations(detail) {
  const foreseen = BREAKS.includes(detail.tone);
  if (detail.tone === 'security') return [];
  return (detail.expectations || []).map((one) => make('div', {class: `expectation${!one.held ? ' broken' : foreseen ? ' foreseen' : ''}`},
    make('b', {}, one.name), !one.held ? ' did not hold' : foreseen ? ' as documented' : ' held', one.counts === false ? ' (after the harness ended the check: it shows nothing)' : '',
    make('dl', {}, make('dt', {}, 'expected'), make('dd', {}, make('code', {}, one.expected)), make('dt', {}, 'observed'), make('dd', {}, make('code', {}, one.observed)))));
}

/* who held which server connection when: the two backend pids of a forced share or move, from left to right in time */
function held(probe) {
  const same = probe.first_pid === probe.second_pid;
  const clients = /two clients|both|second|next client|another requests|callers/.test(probe.how);
  const others = !clients && !same && /other/.test(probe.how);
  const [first, second] = clients ? ['first client', 'second client'] : ['the client', same ? 'the client' : 'the client, later'];
  const words = clients
    ? (same ? `Shared: both held server connection ${probe.first_pid}.` : `Apart: ${probe.first_pid} served the first, ${probe.second_pid} the second.`)
    : (same ? `Kept: it stayed on server connection ${probe.first_pid}.` : `Moved: from server connection ${probe.first_pid} to ${probe.second_pid}.`);
  const lane = (y, pid) => [make('text', {x: 2, y: y + 4}, `backend ${pid}`), make('line', {class: 'line', x1: 92, x2: 336, y1: y, y2: y})];
  const use = (x, y, label, kind) => [make('rect', {class: kind, x, y: y - 10, width: 112, height: 20, rx: 4}), make('text', {class: `on-${kind}`, x: x + 56, y: y + 4, 'text-anchor': 'middle'}, label)];
  const below = same ? 18 : 52;
  return [make('svg', {class: 'held', viewBox: `0 0 340 ${below + 18}`, role: 'img', 'aria-label': words},
    lane(18, probe.first_pid), same ? [] : lane(below, probe.second_pid),
    same || clients ? [] : make('path', {class: 'move', d: `M208 18 C 216 18, 214 ${below}, 222 ${below}`}),
    use(96, 18, first, 'client'), others ? use(222, 18, 'another client', 'other') : [], use(222, below, second, clients ? 'second' : 'client')),
  make('p', {}, make('b', {}, words), ` ${probe.how[0].toUpperCase()}${probe.how.slice(1)}.`)];
}

/* what the control is, and whether it turned the check to Issue */
function controls(detail) {
  return [detail.proven && !(detail.controls || []).length && make('p', {}, `${detail.proven[0].toUpperCase()}${detail.proven.slice(1)}: no control of this check has run for this code. nox -s prove runs them.`),
    ...(detail.controls || []).map(([name, at, turned]) => make('div', {class: `expectation${turned ? '' : ' broken'}`}, make('b', {}, turned ? 'Proven' : 'Unproven'),
      turned ? ` by “${name}”: with this break, the check turns to Issue` : ` by “${name}”: with this break, the check stays green, so its OK is not evidence`, at ? ` at “${at}”.` : '.'))];
}

function section(title, ...children) {
  const filled = children.flat().filter(Boolean);
  return filled.length ? [make('h4', {}, title), ...filled] : [];
}

function copyable(command) {
  const button = make('button', {class: 'copy', type: 'button', onclick: async () => {
    try { await navigator.clipboard.writeText(command); button.textContent = 'Copied'; }
    catch { getSelection().selectAllChildren(button.previousSibling); button.textContent = 'Selected: press Ctrl+C'; }
  }}, 'Copy');
  return [make('pre', {}, command), button];
}

/* the title of what a row observed, by what it is about */
const observed = (detail) => detail.expected ? 'What was observed' : detail.text.startsWith('must not') ? 'What comes of it: an application must not do this' : detail.tone === 'security' ? 'What this version lacks' : 'Documented limit';

async function open(topology, check) {
  const data = await evidence;
  const detail = (data.rows[topology] || {})[check];
  if (!detail) return;
  const claim = data.checks[check];
  const address = CSS.escape(`#row=${topology}/${check}`), chosen = by(`a.sq[href="${address}"]`) || by(`a[href="${address}"]`);
  all('.chosen').forEach((cell) => cell.classList.remove('chosen'));
  if (chosen) chosen.classList.add('chosen');
  const focused = document.activeElement;
  opener = focused && focused !== document.body && !panel.contains(focused) ? focused : chosen;
  const others = data.topologies.filter((name) => name !== topology && (data.rows[name] || {})[check]);
  /* a job engine has its advice in the facts of the row */
  const {instead, source, ...facts} = detail.facts || {}, advised = claim.section === 'jobs' && instead;
  const seen = advised ? facts : detail.facts || {};
  panel.replaceChildren(...[
    make('button', {class: 'close', type: 'button', 'aria-label': 'Close', onclick: close}, '✕'),
    make('h3', {}, check),
    make('p', {class: 'faint'}, `${topology} · ${detail.severity || claim.severity} · ${claim.area}`),
    make('p', {}, make('span', {class: `tag ${detail.tone}`}, detail.text), detail.mark ? ` ${detail.mark}` : ''),
    claim.feature && make('p', {}, make('b', {}, claim.feature)),
    make('p', {}, BREAKS.includes(detail.tone) && make('b', {}, 'Tested claim: '), `${claim.claim[0].toUpperCase()}${claim.claim.slice(1)}.`),
    ...(BREAKS.includes(detail.tone) ? section('What to do instead', claim.instead && make('p', {}, `${claim.instead} `, linked(claim.source_of_instead))) : []),
    ...section('What to do instead', advised && make('p', {}, `${instead} `, source && linked(source))),
    ...section('Reason', detail.reason && make('p', {}, detail.reason)),
    ...section('Reliability', detail.reliability && make('p', {}, detail.reliability)),
    ...section(observed(detail), detail.limit && make('p', {}, detail.limit.outcome), detail.limit && detail.limit.source !== detail.source && make('p', {}, linked(detail.limit.source)),
      detail.tone === 'security' && make('p', {}, 'The row is OK because a distribution maintains this version and may have backported the fixes. The facts below name each one: compare them with its changelog, or upgrade.')),
    ...section('Documented', detail.expected && make('p', {}, `expected: ${detail.expected}`), detail.source && make('p', {}, linked(detail.source)),
      detail.link && make('p', {}, 'known: ', linked(detail.link))),
    ...section('Expected and observed', ...expectations(detail)),
    ...section('Who held which server connection', ...(detail.probes || []).flatMap(held)),
    ...section('Facts', Object.keys(seen).length && make('dl', {}, Object.entries(seen).flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, make('code', {}, value))]))),
    ...section('Proven able to fail', ...controls(detail)),
    ...section('Server logs', detail.log && make('pre', {class: 'log', tabindex: 0, role: 'region', 'aria-label': 'Lines of the server logs'}, detail.log.join('\n'))),
    ...section('Run it again', ...copyable(detail.reproduce), detail.started && make('p', {class: 'faint'}, `started ${detail.started}, took ${seconds(detail.ms || 0)}`)),
    ...section('The statements, to repeat them in psql', detail.script && make('pre', {class: 'log', tabindex: 0, role: 'region', 'aria-label': 'The statements of each session'}, detail.script)),
    ...section('The same check elsewhere', make('p', {class: 'next'}, others.map((name) => make('a', {href: `#row=${name}/${check}`}, `${name}: ${data.rows[name][check].text}`)))),
  ].filter(Boolean));
  const looked = opener || chosen;
  steady(looked, () => {
    panel.hidden = false;
    by('.shell').classList.add('with-panel');
  });
  panel.scrollTop = 0;
  /* the panel makes the map narrower: it scrolls to the whole column of the cell */
  const column = looked && looked.closest('.map td'), frame = column && column.closest('.wide');
  const hidden = frame ? column.getBoundingClientRect().right - frame.getBoundingClientRect().right : 0;
  if (hidden > 0) frame.scrollBy({left: hidden + 2, behavior: 'instant'});
  panel.focus({preventScroll: true});
  /* on a narrow screen the panel covers the lower part of the page */
  const sheet = getComputedStyle(panel).position === 'fixed', place = looked && looked.getBoundingClientRect();
  const bottom = sheet ? panel.getBoundingClientRect().top : innerHeight;
  if (place && (place.top < by('nav').offsetHeight || place.bottom > bottom)) looked.scrollIntoView({block: sheet ? 'start' : 'center', behavior: 'instant'});
}

/* a check of several topologies: the worst of its cells */
routes.set('check', async (check) => {
  const data = await evidence, order = ['Issue', 'Not run', 'OK', 'N/A'];
  const [worst] = data.topologies.filter((name) => data.rows[name] && data.rows[name][check])
    .sort((one, other) => order.indexOf(data.rows[one][check].status) - order.indexOf(data.rows[other][check].status));
  if (worst) open(worst, check);
});
/* names come from outside, so a slash may be part of one */
routes.set('row', async (rest) => {
  const {topologies} = await evidence;
  const topology = topologies.find((name) => rest.startsWith(`${name}/`));
  if (topology !== undefined) open(topology, rest.slice(topology.length + 1));
});
addEventListener('keydown', (event) => { if (event.key === 'Escape' && !panel.hidden) close(); });
