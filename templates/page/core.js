/* Data, elements and addresses that every part of the page uses. Evidence is shown as text only. */
const by = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/* an element with attributes, and children that are elements or text */
function make(name, attributes = {}, ...children) {
  const drawn = ['svg', 'g', 'rect', 'line', 'path', 'text', 'circle', 'title'].includes(name) || (attributes.href && children.some((child) => child instanceof SVGElement));
  const element = drawn ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/* only web addresses become links: evidence may come from elsewhere */
const linked = (address) => /^https?:\/\//.test(address)
  ? make('a', {href: address, rel: 'noreferrer'}, address) : make('code', {}, address);

/* a table whose rows become cards on a narrow screen: each cell names its column, and keeps its role there */
function stack(table) {
  const names = all('thead th', table).map((head) => head.dataset.name || head.textContent);
  const roles = {TABLE: 'table', THEAD: 'rowgroup', TBODY: 'rowgroup', TR: 'row', TD: 'cell'};
  for (const part of [table, ...all('thead, tbody, tr, th, td', table)]) {
    part.setAttribute('role', part.tagName === 'TH' ? (part.scope === 'col' ? 'columnheader' : 'rowheader') : roles[part.tagName]);
  }
  for (const body of table.tBodies) {
    /* a cell of several rows takes a column from the rows below it */
    let taken = [];
    for (const row of body.rows) {
      const free = names.map((name, column) => column).filter((column) => !taken.includes(column));
      [...row.cells].forEach((cell, number) => {
        if (cell.tagName === 'TD' && cell.colSpan === 1) cell.dataset.name = names[free[number]];
        if (cell.rowSpan > 1) taken = [...taken, free[number]];
      });
    }
  }
  table.classList.add('stacked');
  return table;
}

const seconds = (ms) => ms >= 10000 ? `${(ms / 1000).toFixed(0)} s` : ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms.toFixed(0)} ms`;

/* the evidence, decoded once: {topologies, checks: {id: claim}, rows: {topology: {check: detail}}} */
const evidence = (async () => {
  const packed = Uint8Array.from(atob(by('#data').textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const data = JSON.parse(await new Response(stream).text()), rows = {};
  for (const [check, cells] of Object.entries(data.rows)) {
    for (const [topology, detail] of Object.entries(cells)) (rows[topology] ||= {})[check] = detail;
  }
  return {...data, rows};
})();

/* the address of the page is its state: #row=topology/check opens a cell, other parts register theirs by name */
const routes = new Map();
function route() {
  let address = location.hash;
  try { address = decodeURIComponent(address); } catch { /* a stray percent sign: the address as it is */ }
  const [, name, rest] = /^#([a-z]+)=(.*)$/s.exec(address) || [];
  if (name && routes.has(name)) routes.get(name)(rest);
}
const go = (name, rest) => history.replaceState(null, '', `#${name}=${rest}`);
addEventListener('hashchange', route);
