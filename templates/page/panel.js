/* The evidence of one cell, beside the map. */
const panel = by('#panel');
let opener = null;

function close() {
  panel.hidden = true;
  by('.shell').classList.remove('with-panel');
  all('.chosen').forEach((cell) => cell.classList.remove('chosen'));
  history.replaceState(null, '', location.pathname + location.search);
  if (opener) opener.focus({preventScroll: true});
}

function expectations(detail) {
  return (detail.expectations || []).map((one) => make('div', {class: `expectation${one.held ? '' : ' broken'}`},
    make('b', {}, one.name), one.held ? ' held' : ' did not hold', one.counts === false ? ' (after the harness ended the check: it shows nothing)' : '',
    make('dl', {}, make('dt', {}, 'expected'), make('dd', {}, make('code', {}, one.expected)), make('dt', {}, 'observed'), make('dd', {}, make('code', {}, one.observed)))));
}

/* who held which server connection: the two backend pids of a forced share or move */
function held(probe) {
  const same = probe.first_pid === probe.second_pid;
  const lane = (y, pid) => [make('text', {x: 4, y: y + 4}, `backend ${pid}`), make('line', {class: 'line', x1: 96, x2: 330, y1: y, y2: y, 'stroke-width': 2})];
  const use = (x, y, label) => [make('rect', {class: 'client', x, y: y - 9, width: 92, height: 18, rx: 4}), make('text', {x: x + 46, y: y + 4, 'text-anchor': 'middle', style: 'fill: var(--card)'}, label)];
  const second = same ? 16 : 44;
  return make('svg', {class: 'held', viewBox: `0 0 340 ${same ? 32 : 60}`, role: 'img', 'aria-label': same ? `both on backend ${probe.first_pid}` : `first on backend ${probe.first_pid}, then on ${probe.second_pid}`},
    lane(16, probe.first_pid), same ? [] : lane(44, probe.second_pid), use(110, 16, 'first'), use(230, second, 'second'));
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

async function open(topology, check) {
  const data = await evidence;
  const detail = (data.rows[topology] || {})[check];
  if (!detail) return;
  const claim = data.checks[check];
  const links = all('a').filter((link) => link.getAttribute('href') === `#row=${topology}/${check}`);
  const chosen = links.find((link) => link.matches('.sq')) || links[0];
  all('.chosen').forEach((cell) => cell.classList.remove('chosen'));
  if (chosen) chosen.classList.add('chosen');
  opener = document.activeElement && document.activeElement !== document.body ? document.activeElement : chosen;
  const others = data.topologies.filter((name) => name !== topology && (data.rows[name] || {})[check]);
  panel.replaceChildren(
    make('button', {class: 'close', type: 'button', 'aria-label': 'Close', onclick: close}, '✕'),
    make('h3', {}, check),
    make('p', {class: 'faint'}, `${topology} · ${claim.severity} · ${claim.area}`),
    make('p', {}, make('span', {class: `tag ${detail.tone}`}, detail.text), detail.mark ? ` ${detail.mark}` : ''),
    make('p', {}, claim.feature ? `${claim.feature}. ${claim.claim}` : claim.claim),
    ...(['fails', 'hangs', 'lost', 'wrong', 'leaks'].includes(detail.tone) ? section('What to do instead', claim.instead && make('p', {}, `${claim.instead} `, linked(claim.source_of_instead))) : []),
    ...section('Reason', detail.reason && make('p', {}, detail.reason)),
    ...section('Documented', detail.expected && make('p', {}, `expected: ${detail.expected}`), detail.source && make('p', {}, linked(detail.source)),
      detail.limit && make('p', {}, `${detail.limit.outcome} `, linked(detail.limit.source)), detail.link && make('p', {}, 'known: ', linked(detail.link))),
    ...section('Expected and observed', ...expectations(detail)),
    ...section('Who held which server connection', ...(detail.probes || []).flatMap((probe) => [make('p', {}, probe.how), held(probe)])),
    ...section('Facts', Object.keys(detail.facts || {}).length && make('dl', {}, Object.entries(detail.facts).flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, make('code', {}, value))]))),
    ...section('Proven able to fail', ...(detail.controls || []).map(([name, at, proven]) => make('p', {}, `${name}: ${proven ? 'turned it to Issue' : 'did not turn it to Issue'}${at ? ` at “${at}”` : ''}`))),
    ...section('Server logs', detail.log && make('pre', {}, detail.log.join('\n'))),
    ...section('Run it again', ...copyable(detail.reproduce), detail.started && make('p', {class: 'faint'}, `started ${detail.started}, took ${seconds(detail.ms || 0)}`)),
    ...section('The same check elsewhere', make('p', {class: 'next'}, others.map((name) => make('a', {href: `#row=${name}/${check}`}, `${name}: ${data.rows[name][check].text}`)))),
  );
  panel.hidden = false;
  by('.shell').classList.add('with-panel');
  panel.focus({preventScroll: true});
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
