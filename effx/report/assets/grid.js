// Latency of each engine by batch size and length, in ms or relative to the baseline.

const HEATS = 12;

function gridSection() {
  if (!DATA.shapes.length) return;
  const groups = DATA.groups.filter((group) => group.members.some((entry) => ROWS[entry].grid.some((cell) => cell !== null)));
  if (!groups.length) return;
  const batches = [...new Set(DATA.shapes.map((entry) => entry[0]))].sort((a, b) => a - b);
  const lengths = [...new Set(DATA.shapes.map((entry) => entry[1]))].sort((a, b) => a - b);
  const state = { group: groups[0].index, show: 'ratio', page: 0, query: '' };
  const controls = el('div', { class: 'controls' });
  const maps = el('div', { class: 'heats' });
  const pager = el('div', { class: 'pager' });
  const about = el('div', {});
  const filter = el('input', { type: 'search', id: freshId('filter'), autocomplete: 'off' });
  filter.addEventListener('input', throttled(() => { state.query = filter.value.trim().toLowerCase(); state.page = 0; update(); }));

  const update = () => {
    const group = DATA.groups[state.group];
    const base = ROWS[group.baseline];
    const rows = group.members.map((entry) => ROWS[entry]).filter((row) => row.grid.some((cell) => cell !== null) && row.name.toLowerCase().includes(state.query));
    const ratio = state.show === 'ratio';
    const all = rows.filter((row) => !ratio || row !== base);
    const pages = Math.max(1, Math.ceil(all.length / HEATS));
    state.page = Math.min(state.page, pages - 1);
    const seen = rows.flatMap((row) => row.grid.filter((cell) => cell !== null));
    const ends = minmax(seen);
    maps.replaceChildren(...all.slice(state.page * HEATS, (state.page + 1) * HEATS).map((row) => heat(row, base, ratio, batches, lengths, ends)));
    about.replaceChildren(soft(ratio
      ? `Median latency divided by that of the baseline, ${base.name}, paired by round. Blue ▼: faster than the baseline. Orange ▲: slower. ≈: the 95 % interval includes 1, so no difference was shown. ?: too few rounds for an interval.`
      : `Median latency in ms of ${group.task} on ${group.host}; darker is slower.`));
    const go = (text, page, able) => el('button', { type: 'button', disabled: !able, onclick: () => { state.page = page; update(); } }, text);
    pager.replaceChildren(...(pages > 1 ? [go('Previous', state.page - 1, state.page > 0), el('span', {}, ` ${state.page + 1} of ${pages} `), go('Next', state.page + 1, state.page < pages - 1)] : []));
  };
  controls.append(...[
    groups.length > 1 ? select('Task and host', groups.map((entry) => [entry.index, groupName(entry)]), state.group, (entry) => { state.group = Number(entry); state.page = 0; update(); }) : null,
    select('Show', [['ratio', 'ratio to the baseline'], ['ms', 'latency, ms']], state.show, (entry) => { state.show = entry; state.page = 0; update(); }),
    field('Engine', filter),
  ].filter(Boolean));
  section('grid', 'Batch size and length', controls, about, maps, pager);
  update();
}

function heat(row, base, ratio, batches, lengths, [least, most]) {
  const pair = ratio ? against(row) : null;
  const cellOf = (batch, length) => {
    const index = DATA.shapes.findIndex((entry) => entry[0] === batch && entry[1] === length);
    const value = index < 0 ? null : row.grid[index];
    if (value === null) return el('td', { class: 'none' }, '–');
    if (!ratio) {
      const share = most > least ? (Math.log(value) - Math.log(least)) / (Math.log(most) - Math.log(least)) : 0;
      return el('td', { class: 'seq', css: { '--heat': `${Math.round(8 + 62 * share)}%` } }, inColumn(value, 's'));
    }
    const ratioCell = pair && pair.latency.find((entry) => entry.scenario === 'grid' && entry.batch === batch && Number(entry.length) === length && entry.statistic === 'p50');
    if (!ratioCell) return el('td', { class: 'none', title: 'no paired ratio' }, '–');
    const ratioAndInterval = ratioText(ratioCell);
    const kind = ratioAndInterval.sure === null ? 'even' : !ratioAndInterval.sure ? 'even' : ratioCell.value < 1 ? 'less' : 'more';
    const strength = Math.min(1, Math.abs(Math.log2(ratioCell.value)) / 2);
    return el('td', { class: kind, css: { '--heat': `${Math.round(14 + 50 * strength)}%` }, title: `95 %: ${ratioAndInterval.around}${ratioCell.paired ? '' : ', not interleaved'}` },
      `${ratioAndInterval.value} `, el('span', { 'aria-label': kind === 'less' ? 'faster' : kind === 'more' ? 'slower' : ratioAndInterval.sure === null ? 'no interval' : 'statistically indistinguishable' }, { less: '▼', more: '▲', even: ratioAndInterval.sure === null ? '?' : '≈' }[kind]));
  };
  return el('figure', { class: 'heat' }, el('figcaption', {}, row.name),
    ratio && !pair ? soft(pairOf(base, row).why || 'No paired ratios.') : el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': `${row.name}, batch by length` }, el('table', {},
      el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'word' }, 'batch \\ length'), lengths.map((entry) => el('th', { scope: 'col' }, String(entry))))),
      el('tbody', {}, batches.map((batch) => el('tr', {}, el('th', { scope: 'row', class: 'word' }, String(batch)), lengths.map((length) => cellOf(batch, length))))))));
}

function loadSection() {
  const rows = ROWS.filter((row) => row.latest).flatMap((row) => row.others.filter((entry) => entry.scenario !== 'single-stream').map((entry) => rowWith(row, { load: entry })));
  if (!rows.length) return;
  const ms = (key) => (row) => inColumn(row.load.latency_s[key], 's');
  section('load', 'Other scenarios', new DataTable({
    caption: 'Other scenarios', rows, sort: 'scenario',
    filters: [{ label: 'Scenario', value: (row) => row.load.scenario }],
    columns: [
      { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name, text: (row) => row.name },
      { key: 'scenario', title: 'scenario', align: 'word', sort: (row) => row.load.scenario, text: (row) => row.load.scenario },
      { key: 'batch', title: 'batch', sort: (row) => row.load.batch, text: (row) => String(row.load.batch) },
      { key: 'rate', title: 'arrivals/s', sort: (row) => row.load.rate_per_s, text: (row) => significant(row.load.rate_per_s) },
      ...['p50', 'p90', 'p99'].map((key) => ({ key, title: `${key}, ms`, sort: (row) => row.load.latency_s[key], text: ms(key) })),
      { key: 'per_s', title: 'examples/s', sort: (row) => row.load.throughput_per_s, text: (row) => significant(row.load.throughput_per_s) },
      { key: 'samples', title: 'queries', sort: (row) => row.load.queries, text: (row) => `${row.load.queries} in ${row.load.blocks} blocks` },
    ],
  }).root);
}
