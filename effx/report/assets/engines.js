// The table of all results.

function enginesSection() {
  if (!ROWS.length) return;
  const older = ROWS.filter((row) => !row.latest).length;
  const hosts = new Set(ROWS.map((row) => row.host)).size, tasks = new Set(ROWS.map((row) => row.task)).size;
  const place = (row) => {
    const fronts = row.group && row.latest ? frontierOf(row.group, 'accuracy', 'latency') : [];
    return fronts.map((front) => verdictOf(row, front)).find(Boolean) || null;
  };
  const word = (own) => (own === null ? '–' : own.word.startsWith('dominated, but') ? '~ tied' : own.word === 'dominated' ? 'dominated' : '● on it');
  const open = el('div', { class: 'panel', 'aria-live': 'off' });
  const show = (row) => {
    open.replaceChildren(details(row, row.group ? frontierOf(row.group, 'accuracy', 'latency')[0] : null));
    open.scrollIntoView({ block: 'nearest' });
    say(`Details of ${row.name} are below the table.`);
  };
  const columns = [
    { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name,
      text: (row) => el('button', { type: 'button', class: 'link', onclick: () => show(row) }, row.name) },
    { key: 'pin', title: 'compare', align: 'word', text: (row) => pinButton(row) },
    tasks > 1 ? { key: 'task', title: 'task', align: 'word', sort: (row) => row.task, text: (row) => row.task } : null,
    hosts > 1 ? { key: 'host', title: 'host', align: 'word', sort: (row) => row.host, text: (row) => row.host } : null,
    ...[...OBJECTIVES].sort((a, b) => order(a) - order(b)).map((one) => ({
      key: one.name, hint: one.label, sort: (row) => valueOf(row, one.name),
      title: one.name === 'accuracy' ? 'score, 95 %' : `${TITLES[one.name] || one.short}${unitSymbol(one.unit) ? `, ${unitSymbol(one.unit)}` : ''}${energetic(one.name) && METERED.length ? ` (${METERED.join(', ')})` : ''}`,
      text: (row) => cell(row, one),
    })),
    { key: 'n', title: 'n', sort: (row) => row.n, text: (row) => String(row.n) },
    { key: 'source', title: 'energy source', align: 'word', sort: sourceOf, text: sourceOf },
    { key: 'front', title: 'latency frontier', align: 'word', sort: (row) => -(place(row)?.p ?? -1), text: (row) => { const own = place(row); return own ? `${word(own)}, P ${fixed(own.p, 2)}` : '–'; } },
    { key: 'technique', title: 'reduction', align: 'word', sort: (row) => `${row.technique} ${row.level_text}`, text: (row) => (row.technique === 'full' ? 'none' : `${row.technique}: ${row.level_text}`) },
    { key: 'precision', title: 'precision', align: 'word', sort: (row) => row.precision, text: (row) => row.precision },
    { key: 'backend', title: 'backend', align: 'word', sort: (row) => row.backend, text: (row) => row.backend },
    { key: 'gates', title: 'gates failed', sort: (row) => row.failed.length, text: (row) => (row.failed.length ? el('span', { class: 'bad', title: row.failed.map((own) => own.join(': ')).join('\n') }, `✗ ${row.failed.length}`) : '0') },
    { key: 'started', title: 'measured', align: 'word', sort: (row) => row.started, text: (row) => row.started.slice(0, 16).replace('T', ' ') },
  ].filter(Boolean);
  const table = new DataTable({
    caption: 'Every result', columns, rows: ROWS, sort: 'accuracy', descending: true,
    rowClass: (row) => (place(row)?.word === 'on the frontier' ? 'best' : row.latest ? null : 'older'),
    filters: [
      { label: 'Task', value: (row) => row.task }, { label: 'Host', value: (row) => row.host },
      { label: 'Reduction', value: (row) => row.technique }, { label: 'Precision', value: (row) => row.precision },
      { label: 'Backend', value: (row) => row.backend },
    ],
  });
  PINS.watchers.push(() => table.update());
  section('engines', 'Every result', soft(`Choose an engine to read everything about it and where its numbers come from.${older ? ` ${count(older, 'older result')} of engines that were measured again ${older === 1 ? 'is' : 'are'} here too, in grey.` : ''}`), table.root, open);
}

const FIRST = ['accuracy', 'latency', 'latency_p90', 'energy', 'memory', 'size'];
const order = (one) => (FIRST.indexOf(one.name) + FIRST.length + 1) % (FIRST.length + 1);
const TITLES = { latency: 'p50', latency_p90: 'p90', latency_p99: 'p99', memory: 'peak memory', size: 'size' };

function cell(row, one) {
  const value = valueOf(row, one.name);
  if (value === null) return '–';
  const around = interval(lowOf(row, one.name), highOf(row, one.name), one.unit);
  return [inColumn(value, one.unit), around && el('small', {}, ` ${around}`)];
}

function troubleSection() {
  const failed = ROWS.filter((row) => row.latest && row.failed.length);
  const reasons = new Map();
  for (const row of ROWS) {
    const why = row.energy[0]?.reason;
    if (row.latest && why) reasons.set(why, (reasons.get(why) || 0) + 1);
  }
  if (!failed.length && !DATA.failures.length && !reasons.size) return;
  const parts = [];
  for (const [why, number] of reasons) parts.push(el('p', { class: 'note' }, el('strong', {}, 'Energy unavailable'), ` for ${count(number, 'engine')}: ${why}.`));
  if (DATA.failures.length) {
    parts.push(el('h3', {}, 'Not measured'), new DataTable({
      caption: 'Engines that could not be measured', rows: DATA.failures.map((own) => ({ ...own, name: own.engine })),
      columns: [
        { key: 'engine', title: 'engine', align: 'word', sort: (row) => row.engine, text: (row) => row.engine },
        { key: 'failure', title: 'why', align: 'word wide', text: (row) => row.failure },
        { key: 'host', title: 'host', align: 'word', sort: (row) => row.host, text: (row) => row.host },
        { key: 'started', title: 'when', align: 'word', sort: (row) => row.started, text: (row) => row.started },
      ],
    }).root);
  }
  if (failed.length) {
    parts.push(el('h3', {}, 'Gates that failed'), new DataTable({
      caption: 'Gates that failed',
      rows: failed.flatMap((row) => row.failed.map(([gate, seen]) => rowWith(row, { gate, seen }))),
      columns: [
        { key: 'name', title: 'engine', align: 'word', sort: (row) => row.name, text: (row) => row.name },
        { key: 'gate', title: 'gate', align: 'word', sort: (row) => row.gate, text: (row) => row.gate },
        { key: 'seen', title: 'what was seen', align: 'word wide', text: (row) => row.seen },
      ],
    }).root);
  }
  section('trouble', 'What to doubt', ...parts);
}
