/* Two topologies side by side: #compare=session/transaction */
const choose = by('#compare-tools');
if (choose) {
  const [first, second] = all('select', choose), names = [...first.options].map((option) => option.value);
  const place = by('#comparison');
  first.value = names.includes('session') ? 'session' : names[0];
  second.value = names.includes('transaction') ? 'transaction' : names[1];

  /* a documented limit has an outcome of its own, which may differ where both rows are OK */
  const plain = (detail) => detail.text.split(' (')[0].replace('OK, limit', 'documented limit');
  const outcome = (detail) => detail.limit && !detail.expected ? `${detail.text}: ${detail.limit.outcome}` : detail.text;
  const cell = (name, check, detail) => make('td', {}, make('a', {class: `tag ${detail.tone}`, href: `#row=${name}/${check}`}, detail.text), detail.limit && !detail.expected ? make('small', {}, detail.limit.outcome) : '');
  async function compare() {
    const data = await evidence, left = data.rows[first.value] || {}, right = data.rows[second.value] || {};
    const both = Object.keys(data.checks).filter((check) => left[check] && right[check]);
    const turned = both.filter((check) => outcome(left[check]) !== outcome(right[check]))
      .sort((one, other) => (right[one].status === 'N/A' || left[one].status === 'N/A') - (right[other].status === 'N/A' || left[other].status === 'N/A'));
    const worse = new Map();
    for (const check of turned) {
      const words = [left[check], right[check]].map(plain);
      const change = words[0] !== words[1] ? words.join(' → ') : words[0] === 'documented limit' ? 'another documented limit' : `${words[0]} in another way`;
      worse.set(change, (worse.get(change) || 0) + 1);
    }
    const rows = [];
    turned.forEach((check, number) => {
      const claim = data.checks[check], next = data.checks[turned[number + 1]], id = claim.instead && `instead-${check}`;
      rows.push(make('tr', {'data-check': check}, make('th', {scope: 'row'}, claim.feature || claim.claim), cell(first.value, check, left[check]), cell(second.value, check, right[check])));
      /* neighbours with the same advice share it */
      if (id && (!next || next.instead !== claim.instead)) {
        rows.push(make('tr', {class: 'advice'}, make('td', {colspan: 3}, make('p', {id}, make('b', {}, 'Instead: '), claim.instead, ' ', /^https?:/.test(claim.source_of_instead) && make('a', {href: claim.source_of_instead, rel: 'noreferrer'}, 'source')))));
        for (let at = rows.length - 2; at >= 0 && !rows[at].className && data.checks[rows[at].dataset.check].instead === claim.instead; at -= 1) rows[at].cells[0].setAttribute('aria-describedby', id);
      }
    });
    const counted = [...worse].sort((one, other) => other[1] - one[1]).map(([change, number]) => `${number} × ${change}`).join(', ');
    place.replaceChildren(
      make('p', {}, turned.length ? `${turned.length} of ${both.length} checks that ran in both come out differently: ${counted}.` : `All ${both.length} checks that ran in both come out alike.`),
      turned.length ? make('div', {class: 'wide tall', tabindex: 0, role: 'region', 'aria-label': 'Differences'}, stack(make('table', {class: 'map'}, make('caption', {class: 'hidden'}, `What changes from ${first.value} to ${second.value}`),
        make('thead', {}, make('tr', {}, ...['What', first.value, second.value].map((head) => make('th', {scope: 'col'}, head)))),
        make('tbody', {}, rows)))) : '',
    );
  }
  choose.hidden = false;
  const changed = () => { go('compare', `${first.value}/${second.value}`); compare(); };
  choose.addEventListener('change', changed);
  choose.addEventListener('submit', (event) => event.preventDefault());
  by('button', choose).addEventListener('click', () => { [first.value, second.value] = [second.value, first.value]; changed(); });
  routes.set('compare', (rest) => {
    const [from, to] = rest.split('/');
    if (names.includes(from) && names.includes(to)) { first.value = from; second.value = to; compare(); by('#compare').scrollIntoView(); }
  });
  compare();
}
