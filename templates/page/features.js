/* Filters of the feature map. The address holds them: #features=differs,silent&mode=transaction&q=lock */
const tools = by('#feature-tools');
if (tools) {
  tools.hidden = false;
  const map = by('table.map'), search = by('input', tools), output = by('output', tools);
  const heads = all('thead th', map).slice(1), chips = all('.chip', tools), choices = all('select', tools);
  const rows = all('tbody tr:not(.group)', map).map((row) => ({row, text: row.textContent.toLowerCase(), cells: [...row.cells].slice(1)}));
  /* an outcome links to its evidence: its row names the check, its column the topology */
  for (const {row, cells} of rows) {
    cells.forEach((cell, number) => { if (by('a', cell)) by('a', cell).href = `#row=${heads[number].dataset.name}/${row.dataset.check}`; });
  }
  const silent = new Set(['lost', 'wrong', 'leaks']);
  const word = (cell) => { const link = by('a', cell); return link ? link.className : ''; };

  function filter() {
    const pressed = chips.filter((chip) => chip.getAttribute('aria-pressed') === 'true').map((chip) => chip.dataset.filter);
    const chosen = choices.filter((choice) => choice.value);
    const shown = heads.map((head) => chosen.every((choice) => head.dataset[choice.dataset.choice] === choice.value));
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    heads.forEach((head, number) => { head.hidden = !shown[number]; });
    let visible = 0;
    for (const {row, text, cells} of rows) {
      cells.forEach((cell, number) => { cell.hidden = !shown[number]; });
      const found = cells.filter((cell, number) => shown[number]).map((cell) => cell.textContent).filter((content) => content !== '—');
      const kinds = cells.filter((cell, number) => shown[number]).map(word);
      row.hidden = !(words.every((part) => text.includes(part))
        && (!pressed.includes('differs') || new Set(found).size > 1)
        && (!pressed.includes('silent') || kinds.some((kind) => silent.has(kind)))
        && found.length);
      visible += row.hidden ? 0 : 1;
    }
    all('tbody', map).forEach((body) => { body.hidden = all('tr:not(.group)', body).every((row) => row.hidden); });
    output.textContent = `${visible} of ${rows.length} features`;
    return [pressed.join(','), ...chosen.map((choice) => `${choice.dataset.choice}=${choice.value}`), ...(search.value ? [`q=${search.value}`] : [])].join('&');
  }
  const changed = () => { const state = filter(); if (state) go('features', state); else history.replaceState(null, '', '#features'); };
  for (const chip of chips) chip.addEventListener('click', () => { chip.setAttribute('aria-pressed', chip.getAttribute('aria-pressed') !== 'true'); changed(); });
  for (const choice of choices) choice.addEventListener('change', changed);
  search.addEventListener('input', changed);
  tools.addEventListener('submit', (event) => event.preventDefault());
  routes.set('features', (rest) => {
    const [pressed, ...settings] = rest.split('&');
    chips.forEach((chip) => chip.setAttribute('aria-pressed', pressed.split(',').includes(chip.dataset.filter)));
    const values = Object.fromEntries(settings.map((setting) => { const cut = setting.indexOf('='); return [setting.slice(0, cut), setting.slice(cut + 1)]; }));
    choices.forEach((choice) => { choice.value = values[choice.dataset.choice] || ''; });
    search.value = values.q || '';
    filter();
    by('#features').scrollIntoView();
  });
  filter();
}
