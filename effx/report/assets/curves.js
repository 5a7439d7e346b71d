// One curve per strategy: how accuracy falls as a reduction goes further.

function curvesSection() {
  const reduced = (group) => group.members.map((own) => ROWS[own]).filter((row) => row.technique !== 'full');
  const groups = DATA.groups.filter((group) => reduced(group).length);
  if (!groups.length) return;
  const state = { group: groups[0].index, x: 'latency' };
  const controls = el('div', { class: 'controls' });
  const panel = el('div', { class: 'panel' });
  const chart = new Scatter({ label: 'Strategies', onActive: (point, spoken) => {
    panel.replaceChildren(details(point.row, null));
    if (spoken) say(`${point.row.series}, ${point.row.level_text}: ${figureWithInterval(point.row, 'accuracy')}; ${figureWithInterval(point.row, state.x) || ''}`);
  }, onPin: (point) => pin(point.row) });
  const about = el('div', {});

  const rebuild = () => {
    const group = DATA.groups[state.group];
    const rows = group.members.map((own) => ROWS[own]);
    const costs = OBJECTIVES.filter((one) => one.name !== 'accuracy' && rows.some((row) => valueOf(row, one.name) !== null));
    if (!costs.some((one) => one.name === state.x)) state.x = costs[0].name;
    const of = rows.filter((row) => row.technique !== 'full' && row.technique !== 'combined');
    const strategies = new Set(of.map((row) => row.series));
    const redo = (key) => (value) => { state[key] = value; chart.active = null; rebuild(); };
    const focused = [...controls.querySelectorAll('select')].indexOf(document.activeElement);
    controls.replaceChildren(...[
      groups.length > 1 ? select('Task and host', groups.map((own) => [own.index, groupName(own)]), state.group, redo('group')) : null,
      select('Cost', costs.map((one) => [one.name, one.label]), state.x, redo('x')),
    ].filter(Boolean));
    if (focused >= 0) controls.querySelectorAll('select')[focused]?.focus();
    const key = (row) => row.series;
    const shown = [...of, ...rows.filter((row) => row.technique === 'full')];
    const points = pointsOf(shown, state.x, 'accuracy', seriesOf(shown, key), key);
    const lines = [...strategies].map((name) => of.filter((row) => row.series === name && points.has(row.index) && row.level !== null)
      .sort((a, b) => a.level - b.level).map((row) => points.get(row.index)))
      .filter((own) => own.length > 1).map((own) => ({ points: own.map((point) => [point.x, point.y]), colour: own[0].series.colour }));
    const few = points.size <= 30;
    for (const point of points.values()) {
      point.mark = point.row.technique === 'full' ? 'best' : '';
      if (few) point.label = point.row.technique === 'full' ? point.row.precision : point.row.level_text;
    }
    const mixed = energetic(state.x) && sources(of.filter((row) => valueOf(row, state.x) !== null)).length > 1;
    chart.draw({
      points: mixed ? [] : [...points.values()], lines: mixed ? [] : lines, pinned: PINS.rows,
      keys: [{ kind: 'bar', text: '95 % interval' }],
      x: { label: axisLabel(state.x, group, rows), log: false }, y: { label: axisLabel('accuracy', group, rows), log: false },
    });
    const combined = rows.filter((row) => row.technique === 'combined').length;
    about.replaceChildren(soft(mixed ? 'Energies of different sources are not drawn together.'
      : `${count(strategies.size, 'strategy').replace('strategys', 'strategies')}: engines of one reduction, precision and backend, joined in order of how far the reduction goes. Engines that are not reduced stand as they are.${combined ? ` ${count(combined, 'engine')} with several reductions at once left out.` : ''}`));
    if (chart.active === null) panel.replaceChildren(levels(of, state.x, group));
  };
  section('strategies', 'Strategies', controls, el('div', { class: 'split' }, el('div', {}, about, chart.root), panel));
  PINS.watchers.push(() => { if (chart.spec) { chart.spec.pinned = PINS.rows; chart.rings(); } });
  rebuild();
}

// Beside the curves: each level's accuracy and cost next to the baseline's.
function levels(rows, cost, group) {
  const sorted = [...rows].sort((a, b) => (a.series < b.series ? -1 : a.series > b.series ? 1 : (b.level ?? 0) - (a.level ?? 0)));
  const one = objective(cost);
  return el('div', {}, el('h3', {}, 'Levels'), el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Levels of each strategy' }, el('table', {},
    el('thead', {}, el('tr', {}, ['strategy', 'level', group.metric, `${TITLES[cost] || one.short}${unitSymbol(one.unit) ? `, ${unitSymbol(one.unit)}` : ''}`].map((text, place) => el('th', { scope: 'col', class: place < 2 ? 'word' : null }, text)))),
    el('tbody', {}, sorted.slice(0, 60).map((row) => el('tr', {}, el('th', { scope: 'row', class: 'word' }, row.series), el('td', { class: 'word' }, row.level_text), el('td', {}, inColumn(valueOf(row, 'accuracy'), '')), el('td', {}, inColumn(valueOf(row, cost), one.unit))))))));
}
