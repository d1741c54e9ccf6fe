/* When each check ran: a group of lanes for each topology. */
(async () => {
  const place = by('#lanes');
  if (!place) return;
  const data = await evidence, groups = [];
  let begin = Infinity, end = -Infinity;
  for (const name of data.topologies) {
    const bars = Object.entries(data.rows[name] || {}).filter(([, detail]) => detail.started && detail.ms)
      .map(([check, detail]) => ({check, detail, at: Date.parse(detail.started), ms: detail.ms})).filter((bar) => bar.at).sort((one, other) => one.at - other.at);
    if (!bars.length) continue;
    const lanes = [];
    for (const bar of bars) {
      let lane = lanes.findIndex((free) => free <= bar.at);
      if (lane < 0) lane = lanes.push(0) - 1;
      lanes[lane] = bar.at + bar.ms;
      bar.lane = lane;
      begin = Math.min(begin, bar.at); end = Math.max(end, bar.at + bar.ms);
    }
    groups.push({name, bars, lanes: lanes.length});
  }
  if (!groups.length) { place.append(make('p', {}, 'No check has a time.')); return; }
  const width = 1200, left = 170, high = 7, scale = (width - left - 10) / Math.max(1, end - begin);
  const step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600].find((size) => (end - begin) / 1000 / size <= 10) || 7200;
  const drawn = [];
  let top = 22;
  for (const {name, bars, lanes} of groups) {
    drawn.push(make('text', {x: left - 8, y: top + lanes * high / 2 + 4, 'text-anchor': 'end'}, name));
    for (const {check, detail, at, ms, lane} of bars) {
      drawn.push(make('a', {href: `#row=${name}/${check}`, class: detail.tone, tabindex: -1}, make('title', {}, `${check} · ${seconds(ms)}`), make('rect', {x: left + (at - begin) * scale, y: top + lane * high, width: Math.max(1, ms * scale - .5), height: high - 1, rx: 1})));
    }
    top += lanes * high + 8;
  }
  const axis = [];
  for (let second = 0; second * 1000 <= end - begin; second += step) {
    const x = left + second * 1000 * scale;
    axis.push(make('line', {class: 'axis', x1: x, x2: x, y1: 16, y2: top}), make('text', {x, y: 12, 'text-anchor': 'middle'}, `${second} s`));
  }
  place.className = 'wide';
  place.append(make('svg', {class: 'lanes', viewBox: `0 0 ${width} ${top}`, role: 'group', 'aria-label': `${groups.length} topologies in ${seconds(end - begin)}`}, axis, drawn));
})();
